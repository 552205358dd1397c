-- The messages that have been handled, by consumer. A message is handled if and
-- only if its row is committed, for the row is written in the transaction that
-- has the effect.
--
-- Rows are not deleted: they go into the current one of four partitions, the
-- generations, and when the next generation begins the oldest is truncated. That
-- costs the same for ten rows and for ten million, and leaves nothing for vacuum.
--
-- A primary key over a partitioned table holds the partition key, so it does not
-- keep two generations from having the same message. Two rules do:
--   1. Whoever writes a row looks into the other generations before.
--   2. A new generation begins when no transaction is at work that has written
--      into the last one. So what has to be found in another generation is
--      committed; what is not committed yet is in the current one, where the
--      primary key makes a twin wait.

-- +goose Up
CREATE TABLE inbox_messages (
    consumer   text        NOT NULL,
    message_id text        NOT NULL,
    generation smallint    NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, message_id, generation)
) PARTITION BY LIST (generation);
CREATE TABLE inbox_messages_0 PARTITION OF inbox_messages FOR VALUES IN (0);
CREATE TABLE inbox_messages_1 PARTITION OF inbox_messages FOR VALUES IN (1);
CREATE TABLE inbox_messages_2 PARTITION OF inbox_messages FOR VALUES IN (2);
CREATE TABLE inbox_messages_3 PARTITION OF inbox_messages FOR VALUES IN (3);

-- One row: which generation is the current one, and since when.
CREATE TABLE inbox_generation (
    only_one   boolean     PRIMARY KEY DEFAULT true CHECK (only_one),
    current    smallint    NOT NULL CHECK (current BETWEEN 0 AND 3),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO inbox_generation (current) VALUES (0);

-- How long each consumer wants its rows kept; null is for ever. The longest
-- counts for all. Delete the row of a consumer that is no more.
CREATE TABLE inbox_consumers (
    consumer  text     PRIMARY KEY,
    retention interval
);

-- inbox_first books messages as handled by a consumer and returns those that were
-- not. It waits for a transaction that has booked the same and not ended.
--
-- Its first statement keeps the generation as it is until the transaction ends;
-- the next ones see what was committed before. With a snapshot that was taken
-- earlier (REPEATABLE READ, SERIALIZABLE) they do not, so there the row is locked,
-- which fails with 40001 if a generation has begun since.
--
-- The ids are sorted, so that two batches with the same ids do not deadlock.
-- Sequential scans are off because a plan made while the tables were empty is kept.
-- +goose StatementBegin
CREATE FUNCTION inbox_first(consumer_name text, ids text[]) RETURNS SETOF text
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    this smallint;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('inbox.generation'), 'inbox_messages'::regclass::oid::integer);
    IF current_setting('transaction_isolation') = 'read committed' THEN
        SELECT g.current INTO STRICT this FROM inbox_generation g;
    ELSE
        SELECT g.current INTO STRICT this FROM inbox_generation g FOR SHARE;
    END IF;
    RETURN QUERY
        INSERT INTO inbox_messages AS m (consumer, message_id, generation)
        SELECT consumer_name, id, this
        FROM unnest(ids) AS id
        WHERE (SELECT true FROM inbox_messages o
               WHERE o.consumer = consumer_name AND o.message_id = id AND o.generation <> this LIMIT 1) IS NULL
        ORDER BY id
        ON CONFLICT DO NOTHING
        RETURNING m.message_id;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION inbox_first;
DROP TABLE inbox_consumers, inbox_generation, inbox_messages;
