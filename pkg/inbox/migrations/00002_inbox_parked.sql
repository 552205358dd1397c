-- The messages that could not be handled, whole, with the reason. They are no
-- longer in the queue. Look here for what is stuck; Consumer.Replay handles them
-- again, and deleting a row gives its message up.
--
-- What AMQP calls a string may be any bytes; here it is made valid text. The id
-- is null if the message has none that can be used.

-- +goose Up
CREATE TABLE inbox_parked (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer    text        NOT NULL,
    message_id  text,
    reason      text        NOT NULL,
    attempts    integer     NOT NULL,
    parked_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    queue       text        NOT NULL,
    exchange    text        NOT NULL,
    routing_key text        NOT NULL,
    properties  json        NOT NULL, -- content_type, headers and so on
    body        bytea       NOT NULL,
    UNIQUE (consumer, message_id)
);

-- +goose Down
DROP TABLE inbox_parked;
