-- What the shop needs. A deployment runs this before the shop starts.

CREATE TABLE public.orders (
    id    text   PRIMARY KEY,
    cents bigint NOT NULL
);

-- The tables of pkg/outbox, as its migrations make them.
CREATE TABLE public.outbox (
    seq          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id   uuid        NOT NULL UNIQUE,
    aggregate_id text        NOT NULL,
    type         text        NOT NULL,
    payload      jsonb       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz
);
CREATE INDEX outbox_pending ON public.outbox (seq) WHERE published_at IS NULL;
CREATE TABLE public.outbox_held (
    aggregate_id text        PRIMARY KEY,
    seq          bigint      NOT NULL,
    reason       text        NOT NULL,
    attempts     integer     NOT NULL,
    until        timestamptz NOT NULL
);
