package inbox

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"
)

// properties is the JSON form of a message's properties.
type properties struct {
	Headers         value     `json:"headers,omitzero"`
	ContentType     value     `json:"content_type,omitzero"`
	ContentEncoding value     `json:"content_encoding,omitzero"`
	DeliveryMode    uint8     `json:"delivery_mode,omitzero"`
	Priority        uint8     `json:"priority,omitzero"`
	CorrelationID   value     `json:"correlation_id,omitzero"`
	ReplyTo         value     `json:"reply_to,omitzero"`
	Expiration      value     `json:"expiration,omitzero"`
	MessageID       value     `json:"message_id,omitzero"`
	Timestamp       time.Time `json:"timestamp,omitzero"`
	Type            value     `json:"type,omitzero"`
	UserID          value     `json:"user_id,omitzero"`
	AppID           value     `json:"app_id,omitzero"`
}

func propertiesOf(d amqp.Delivery) properties {
	p := properties{DeliveryMode: d.DeliveryMode, Priority: d.Priority, Timestamp: d.Timestamp}
	if d.Headers != nil {
		p.Headers.v = d.Headers
	}
	for _, f := range p.strings(&d) {
		if *f.of != "" {
			f.in.v = *f.of
		}
	}
	return p
}

func (p properties) restore(d *amqp.Delivery) {
	d.DeliveryMode, d.Priority, d.Timestamp = p.DeliveryMode, p.Priority, p.Timestamp
	d.Headers, _ = p.Headers.v.(amqp.Table)
	for _, f := range p.strings(d) {
		*f.of, _ = f.in.v.(string)
	}
}

type field struct {
	in *value
	of *string
}

func (p *properties) strings(d *amqp.Delivery) []field {
	return []field{
		{&p.ContentType, &d.ContentType}, {&p.ContentEncoding, &d.ContentEncoding}, {&p.CorrelationID, &d.CorrelationId},
		{&p.ReplyTo, &d.ReplyTo}, {&p.Expiration, &d.Expiration}, {&p.MessageID, &d.MessageId}, {&p.Type, &d.Type},
		{&p.UserID, &d.UserId}, {&p.AppID, &d.AppId},
	}
}

// value is a value of AMQP in JSON. What JSON has too stands for itself; the rest
// is an object with its type: {"int32": 7}. So nothing is lost on the way.
type value struct{ v any }

func (x value) IsZero() bool { return x.v == nil }

// MarshalJSON encodes the value.
func (x value) MarshalJSON() ([]byte, error) {
	typed := func(kind string, v any) ([]byte, error) { return json.Marshal(map[string]any{kind: v}) }
	switch v := x.v.(type) {
	case nil, bool:
		return json.Marshal(v)
	case string:
		if utf8.ValidString(v) {
			return json.Marshal(v)
		}
		return typed("string", []byte(v))
	case float32:
		return typed("float32", strconv.FormatFloat(float64(v), 'g', -1, 32)) // it may be NaN
	case float64:
		return typed("float64", strconv.FormatFloat(v, 'g', -1, 64))
	case []byte:
		return typed("bytes", v)
	case time.Time:
		return typed("time", v)
	case amqp.Decimal:
		return typed("decimal", v)
	case amqp.Table:
		values := make(map[string]value, len(v))
		for name, one := range v {
			values[name] = value{one}
		}
		return typed("table", values)
	case []any:
		values := make([]value, len(v))
		for i, one := range v {
			values[i] = value{one}
		}
		return typed("array", values)
	case int8, uint8, int16, uint16, int32, uint32, int64, uint64, int:
		return typed(fmt.Sprintf("%T", v), v)
	}
	return nil, fmt.Errorf("inbox: a header of type %T", x.v)
}

// UnmarshalJSON decodes the value.
func (x *value) UnmarshalJSON(text []byte) error {
	if len(text) == 0 || text[0] != '{' {
		return json.Unmarshal(text, &x.v)
	}
	var typed map[string]json.RawMessage
	if err := json.Unmarshal(text, &typed); err != nil {
		return err
	}
	for kind, raw := range typed {
		var err error
		if x.v, err = decode(kind, raw); err != nil {
			return err
		}
	}
	return nil
}

func decode(kind string, raw json.RawMessage) (any, error) {
	switch kind {
	case "int8":
		return as[int8](raw)
	case "uint8":
		return as[uint8](raw)
	case "int16":
		return as[int16](raw)
	case "uint16":
		return as[uint16](raw)
	case "int32":
		return as[int32](raw)
	case "uint32":
		return as[uint32](raw)
	case "int64":
		return as[int64](raw)
	case "uint64":
		return as[uint64](raw)
	case "int":
		return as[int](raw)
	case "bytes":
		return as[[]byte](raw)
	case "time":
		return as[time.Time](raw)
	case "decimal":
		return as[amqp.Decimal](raw)
	case "string":
		var b []byte
		err := json.Unmarshal(raw, &b)
		return string(b), err
	case "float32":
		f, err := float(raw, 32)
		return float32(f), err
	case "float64":
		return float(raw, 64)
	case "table":
		var values map[string]value
		err := json.Unmarshal(raw, &values)
		table := make(amqp.Table, len(values))
		for name, one := range values {
			table[name] = one.v
		}
		return table, err
	case "array":
		var values []value
		err := json.Unmarshal(raw, &values)
		array := make([]any, len(values))
		for i, one := range values {
			array[i] = one.v
		}
		return array, err
	}
	return nil, fmt.Errorf("inbox: a header of the unknown type %q", kind)
}

func as[T any](raw json.RawMessage) (any, error) {
	var v T
	err := json.Unmarshal(raw, &v)
	return v, err
}

func float(raw json.RawMessage, bits int) (float64, error) {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return 0, err
	}
	return strconv.ParseFloat(s, bits)
}
