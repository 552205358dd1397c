-- Wakes the relay by NOTIFY when a transaction that wrote events commits.
--
-- NOTIFY takes a lock of the whole server from there to the end of the commit:
-- one in each transaction makes all commits queue up. So only one transaction
-- at a time carries it. The others are committing in the same moment, and the
-- relay, once awake, looks again after a moment. The trigger is deferred because
-- the lock would otherwise be held for as long as a slow transaction lasts.

-- +goose Up
-- +goose StatementBegin
CREATE FUNCTION outbox_wake() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_try_advisory_xact_lock(hashtext('outbox.wake'), TG_RELID::integer) THEN
        PERFORM pg_notify('outbox', '');
    END IF;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE CONSTRAINT TRIGGER outbox_wake AFTER INSERT ON outbox
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION outbox_wake();

-- +goose Down
DROP TRIGGER outbox_wake ON outbox;
DROP FUNCTION outbox_wake();
