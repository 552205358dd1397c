-- The events that are yet to be published, and for a while those that were.
-- A table of this name that is there already is adopted as it is.

-- +goose Up
CREATE TABLE IF NOT EXISTS outbox (
    seq          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id   uuid        NOT NULL UNIQUE,
    aggregate_id text        NOT NULL,
    type         text        NOT NULL,
    payload      jsonb       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz
);
CREATE INDEX IF NOT EXISTS outbox_pending ON outbox (seq) WHERE published_at IS NULL;

-- +goose Down
DROP TABLE outbox;
