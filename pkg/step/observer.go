package step

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/view"
)

// Bounds of a look.
const (
	maxRows     = 50
	maxMessages = 50
	maxThings   = 12
)

// Observer looks at the tables and queues of one database and virtual host, on
// connections of its own. One look is made at a time.
type Observer struct {
	databaseURL, amqpURL string
	admin                *broker.Admin // nil: queues are not known
	vhost                string

	mu     sync.Mutex
	db     *pgx.Conn
	conn   *amqp.Connection
	queues []string
}

// NewObserver returns an Observer. It does not connect yet. managementURL is
// that of the broker's management API, which lists the queues; without it no
// queue is shown.
func NewObserver(databaseURL, amqpURL, managementURL string) (*Observer, error) {
	o := &Observer{databaseURL: databaseURL, amqpURL: amqpURL}
	uri, err := amqp.ParseURI(amqpURL)
	if err != nil {
		return nil, fmt.Errorf("step: read the broker's address: %w", err)
	}
	o.vhost = uri.Vhost
	if managementURL != "" {
		if o.admin, err = broker.NewAdmin(managementURL); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// ListQueues asks the broker which queues there are. Until it was called once,
// Look shows none.
func (o *Observer) ListQueues(ctx context.Context) error {
	if o.admin == nil {
		return nil
	}
	depths, err := o.admin.Depths(ctx, o.vhost)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queues = slices.Sorted(maps.Keys(depths))
	return nil
}

// Look reads the tables and queues. Of what it cannot read, the note says why:
// a table may be locked by the program that is being looked at.
func (o *Observer) Look(ctx context.Context) ([]view.Thing, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	things, err := o.tables(ctx)
	if err != nil {
		return nil, fmt.Errorf("step: look at the tables: %w", err)
	}
	queues, err := o.messages(ctx)
	if err != nil {
		return nil, fmt.Errorf("step: look at the queues: %w", err)
	}
	return append(things, queues...), nil
}

// Close ends the connections.
func (o *Observer) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.db != nil {
		_ = o.db.Close(context.Background()) // a broken one is closed too
		o.db = nil
	}
	if o.conn != nil {
		_ = o.conn.Close()
		o.conn = nil
	}
}

// relation is a table to be read.
type relation struct {
	name  string // quoted, with the schema where it is not public
	shown string
	order string
}

// relations lists the tables that hold work, each with its order, one that is
// divided into partitions as a whole. Those that only say which migrations have
// run tell nothing.
const relations = `
SELECT format('%I.%I', n.nspname, c.relname),
       CASE WHEN n.nspname = 'public' THEN c.relname ELSE n.nspname || '.' || c.relname END,
       coalesce((SELECT string_agg(format('%I', a.attname), ', ' ORDER BY k.place)
                   FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS k(attnum, place), pg_attribute a
                  WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid AND a.attnum = k.attnum), 'ctid')
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
   AND c.relname NOT LIKE '%migration%'
   AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'is_applied') -- goose's, by whatever name
   AND has_table_privilege(c.oid, 'SELECT')
 ORDER BY c.oid
 LIMIT $1`

func (o *Observer) tables(ctx context.Context) ([]view.Thing, error) {
	if o.db == nil || o.db.IsClosed() {
		config, err := pgx.ParseConfig(o.databaseURL)
		if err != nil {
			return nil, err
		}
		config.RuntimeParams["application_name"] = "observer"
		config.RuntimeParams["lock_timeout"] = "150"
		config.RuntimeParams["statement_timeout"] = "1000"
		if o.db, err = pgx.ConnectConfig(ctx, config); err != nil {
			return nil, err
		}
	}
	rows, err := o.db.Query(ctx, relations, maxThings)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r relation, err error) {
		return r, row.Scan(&r.name, &r.shown, &r.order)
	})
	if err != nil {
		return nil, err
	}
	var things []view.Thing
	for _, r := range all {
		t, err := o.table(ctx, r)
		if err != nil {
			var refused *pgconn.PgError
			if !errors.As(err, &refused) {
				return nil, err
			}
			t = view.Thing{Kind: "table", Name: r.shown, Note: "cannot be read now: " + refused.Message}
		}
		things = append(things, t)
	}
	return things, nil
}

// table reads one table. The simple protocol keeps no prepared statement, which
// a change of the table's columns would make useless.
func (o *Observer) table(ctx context.Context, r relation) (view.Thing, error) {
	t := view.Thing{Kind: "table", Name: r.shown}
	rows, err := o.db.Query(ctx, fmt.Sprintf("SELECT * FROM %s ORDER BY %s LIMIT %d", r.name, r.order, maxRows+1), pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return t, err
	}
	defer rows.Close()
	for _, f := range rows.FieldDescriptions() {
		t.Columns = append(t.Columns, f.Name)
	}
	for rows.Next() {
		var row []string
		for i, v := range rows.RawValues() {
			row = append(row, CellText(rows.FieldDescriptions()[i].DataTypeOID, v))
		}
		t.Rows = append(t.Rows, row)
	}
	if err := rows.Err(); err != nil {
		return t, err
	}
	if len(t.Rows) > maxRows {
		t.Rows = t.Rows[:maxRows]
		var all int
		if err := o.db.QueryRow(ctx, "SELECT count(*) FROM "+r.name, pgx.QueryExecModeSimpleProtocol).Scan(&all); err != nil {
			return t, err
		}
		t.More = max(1, all-maxRows)
	}
	return t, nil
}

func (o *Observer) messages(ctx context.Context) ([]view.Thing, error) {
	if len(o.queues) == 0 {
		return nil, nil
	}
	if o.conn == nil || o.conn.IsClosed() {
		conn, err := broker.Dial(ctx, o.amqpURL)
		if err != nil {
			return nil, err
		}
		o.conn = conn
	}
	ch, err := o.conn.Channel()
	if err != nil {
		return nil, err
	}
	defer func() { _ = ch.Close() }() // one that the broker has closed already
	var things []view.Thing
	for _, name := range o.queues[:min(len(o.queues), maxThings)] {
		t, err := messages(ch, name)
		var refused *amqp.Error
		if errors.As(err, &refused) {
			if refused.Code == amqp.NotFound { // gone since it was listed
				if ch, err = o.conn.Channel(); err != nil {
					return nil, err
				}
				continue
			}
			t.Note = "cannot be read now: " + refused.Reason
			if ch, err = o.conn.Channel(); err != nil {
				return nil, err
			}
		} else if err != nil {
			return nil, err
		}
		things = append(things, t)
	}
	return things, nil
}

// messages reads a queue and puts back what it has read, which the broker does
// at the place where it was.
func messages(ch *amqp.Channel, name string) (view.Thing, error) {
	t := view.Thing{Kind: "queue", Name: name, Columns: []string{"routing key", "message id", "body"}}
	q, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
	if err != nil {
		return t, err
	}
	if q.Consumers > 0 {
		t.More, t.Note = q.Messages, "not read, for it has a consumer"
		return t, nil
	}
	var last uint64
	for len(t.Rows) < maxMessages {
		d, ok, err := ch.Get(name, false)
		if err != nil {
			return t, err
		}
		if !ok {
			break
		}
		last = d.DeliveryTag
		t.Rows = append(t.Rows, []string{Shorten(d.RoutingKey, 60), ShortID(d.MessageId), Shorten(string(d.Body), 120)})
	}
	if last > 0 {
		if err := ch.Nack(last, true, true); err != nil {
			return t, err
		}
		// The broker answers in order: after this the messages are back.
		if _, err := ch.QueueDeclarePassive(name, true, false, false, false, nil); err != nil {
			return t, err
		}
	}
	t.More = max(0, q.Messages-len(t.Rows))
	return t, nil
}
