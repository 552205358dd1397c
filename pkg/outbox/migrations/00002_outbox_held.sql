-- The aggregates whose next event the broker has refused. Until the time has
-- come for another try, none of an aggregate's events is published, so that
-- their order is kept. Look here for what is stuck, and why. To have an aggregate
-- tried at once, delete its row.

-- +goose Up
CREATE TABLE IF NOT EXISTS outbox_held (
    aggregate_id text        PRIMARY KEY,
    seq          bigint      NOT NULL, -- the event that was refused
    reason       text        NOT NULL,
    attempts     integer     NOT NULL,
    until        timestamptz NOT NULL
);

-- +goose Down
DROP TABLE outbox_held;
