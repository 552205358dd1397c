-- The requests to a dependency: each is stored before the first attempt, and the
-- row is the truth about what has become of it. Look here for what is queued, and
-- for what is parked and why.
--
-- A pending row that somebody works on is leased: next_attempt_at lies in the
-- future, and claim, which grows with each lease, says whose it is. If he dies the
-- lease runs out, and the row is taken by another.

-- +goose Up
CREATE TABLE breaker_requests (
    queue           text        NOT NULL,
    key             text        NOT NULL, -- the idempotency key, the same in each attempt
    body            bytea       NOT NULL,
    state           text        NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'parked')),
    attempts        integer     NOT NULL DEFAULT 0, -- calls, one that is under way included
    claim           bigint      NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    stored_at       timestamptz NOT NULL DEFAULT now(),
    settled_at      timestamptz, -- when it was done or parked
    answer          bytea,
    reason          text, -- why the last attempt failed
    PRIMARY KEY (queue, key)
);
CREATE INDEX breaker_requests_due ON breaker_requests (queue, next_attempt_at) WHERE state = 'pending';
CREATE INDEX breaker_requests_settled ON breaker_requests (queue, state, settled_at) WHERE state <> 'pending';

-- +goose Down
DROP TABLE breaker_requests;
