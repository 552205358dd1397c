package main

import (
	"context"
	"fmt"
	"time"

	wm "github.com/ThreeDotsLabs/watermill"
	wamqp "github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	wsql "github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	forwarderTopic = "to_forward"
	orderTopic     = "order.changed"
)

var (
	theirSchema  = wsql.DefaultPostgreSQLSchema{GeneratePayloadType: func(string) string { return "JSON" }}
	nop          = wm.NopLogger{}
	theirOffsets = wsql.DefaultPostgreSQLOffsetsAdapter{}
)

// theirs is the table of Watermill's forwarder.
type theirs struct{}

func (theirs) prepare(ctx context.Context, db *pgxpool.Pool) error {
	s, err := theirSubscriber(db)
	if err != nil {
		return err
	}
	return s.SubscribeInitialize(forwarderTopic)
}

func (theirs) add(ctx context.Context, tx pgx.Tx, events []event) error {
	p, err := wsql.NewPublisher(wsql.TxFromPgx(tx), wsql.PublisherConfig{SchemaAdapter: theirSchema}, nil)
	if err != nil {
		return err
	}
	messages := make([]*message.Message, len(events))
	for i, e := range events {
		messages[i] = message.NewMessage(e.id, e.payload)
		messages[i].Metadata.Set("aggregate-id", e.aggregate)
	}
	return forwarder.NewPublisher(p, forwarder.PublisherConfig{ForwarderTopic: forwarderTopic}).Publish(orderTopic, messages...)
}

func (theirs) settled(ctx context.Context, db *pgxpool.Pool) (done bool, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT NOT EXISTS (SELECT FROM %s m, %s o WHERE (m.transaction_id, m."offset") > (o.last_processed_transaction_id, o.offset_acked))`,
		theirSchema.MessagesTable(forwarderTopic), theirOffsets.MessagesOffsetsTable(forwarderTopic))).Scan(&done)
	return done, err
}

// theirSubscriber polls every 10 ms; by default it is every second.
func theirSubscriber(db *pgxpool.Pool) (*wsql.Subscriber, error) {
	return wsql.NewSubscriber(wsql.BeginnerFromPgx(db), wsql.SubscriberConfig{
		SchemaAdapter: theirSchema, OffsetsAdapter: theirOffsets, PollInterval: 10 * time.Millisecond,
	}, nil)
}

// watermill forwards as its documentation shows, into the same exchange, with
// the topic as routing key.
func watermill(confirms bool) func(context.Context, *pgxpool.Pool, string) error {
	return func(ctx context.Context, db *pgxpool.Pool, amqpURL string) error {
		s, err := theirSubscriber(db)
		if err != nil {
			return err
		}
		config := wamqp.NewDurableTopicConfig(amqpURL, "events", "")
		config.Exchange.Durable = true
		config.Publish.ConfirmDelivery = confirms
		config.Publish.Mandatory = true
		config.Publish.ChannelPoolSize = 10
		p, err := wamqp.NewPublisher(config, nop)
		if err != nil {
			return err
		}
		defer p.Close()
		f, err := forwarder.NewForwarder(s, p, nop, forwarder.Config{ForwarderTopic: forwarderTopic})
		if err != nil {
			return err
		}
		return f.Run(ctx)
	}
}
