-- Wakes the relay by NOTIFY when a transaction that wrote events commits.
--
-- NOTIFY takes a lock of the whole server that lasts to the end of the commit:
-- one in each transaction makes all commits queue up. So only one of those that
-- commit in the same moment carries it. The others could be missed by a relay
-- that looks too early, so all hold a shared lock until their commit is done,
-- and the relay goes back to sleep only when it finds that lock free.
--
-- The trigger is deferred because the locks would otherwise be held for as long
-- as a slow transaction lasts.

-- +goose Up
-- +goose StatementBegin
CREATE FUNCTION outbox_wake() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('outbox.commit'), TG_RELID::integer);
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
