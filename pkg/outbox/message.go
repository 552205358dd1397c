package outbox

import (
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Message is one row of the outbox on its way to the broker.
type Message struct {
	Seq         int64 // the row's number; the order within an aggregate
	ID          uuid.UUID
	AggregateID string
	Type        string
	Payload     []byte // JSON
	CreatedAt   time.Time

	attempts int  // refusals in a row so far
	txn      *txn // where it was read from, by CDC
}

// AggregateHeader is the message header that holds the aggregate's ID.
const AggregateHeader = "aggregate-id"

// publishing is the form in which m is published.
func (m *Message) publishing(prepare func(Message, *amqp.Publishing)) amqp.Publishing {
	p := amqp.Publishing{
		Headers:     amqp.Table{AggregateHeader: m.AggregateID},
		ContentType: "application/json",
		Timestamp:   m.CreatedAt,
		Type:        m.Type,
		Body:        m.Payload,
	}
	if prepare != nil {
		prepare(*m, &p)
	}
	p.MessageId = m.ID.String()
	p.DeliveryMode = amqp.Persistent
	return p
}
