package broker_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/servertest"
	"crashcourse/pkg/state"
)

func TestDialSaysWhatIsWrong(t *testing.T) {
	s := servertest.New(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, c := range []struct {
		name, url, want string
	}{
		{"garbage", "http://u:secret@h", "cannot be read"},
		{"nobody listens", "amqp://u:secret@127.0.0.1:1/", "nothing answers at 127.0.0.1:1"},
		{"unknown host", "amqp://u:secret@no-such-host.invalid/", "not known"},
		{"wrong password", mustURL(t, s.AMQPURL, broker.Change{User: s.Name, Password: "secret"}), "refused user"},
		{"no such vhost", mustURL(t, s.AMQPURL, broker.Change{Vhost: "no such/vhost"}), `may not use virtual host "no such/vhost"`},
		{"the default vhost", mustURL(t, s.AMQPURL, broker.Change{Vhost: "/"}), `may not use virtual host "/"`},
		{"no answer", "amqp://u:secret@" + silent.Addr().String() + "/", "did not answer in time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			defer cancel()
			_, err := broker.Dial(ctx, c.url)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells the password: %v", err)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		_, err := broker.Dial(ctx, "amqp://"+silent.Addr().String()+"/")
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
	})
}

// A context bounds dialling, not the life of what was dialled.
func TestDialledConnectionOutlivesItsContext(t *testing.T) {
	s := servertest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	conn, err := broker.Dial(ctx, s.AMQPURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel()
	if _, err := conn.Channel(); err != nil {
		t.Fatal(err)
	}
}

func TestAdmin(t *testing.T) {
	s := servertest.New(t)
	ctx := t.Context()
	vhost, user := s.Name+"_odd/ %2f", s.Name+"_odd user"
	remove := func() {
		if err := errors.Join(s.Admin.DeleteVhost(context.Background(), vhost), s.Admin.DeleteUser(context.Background(), user)); err != nil {
			t.Error(err)
		}
	}
	remove() // nothing there: no error
	defer remove()

	for range 2 { // the second time all is there
		if err := s.Admin.EnsureVhost(ctx, vhost); err != nil {
			t.Fatal(err)
		}
	}
	first, err := s.Admin.EnsureUser(ctx, user, vhost, broker.Everything)
	if err != nil {
		t.Fatal(err)
	}
	password, err := s.Admin.EnsureUser(ctx, user, vhost, broker.Permissions{Write: "^q$"})
	if err != nil || password == first {
		t.Fatalf("a user made again has password %q (%v), want a new one", password, err)
	}
	conn, err := broker.Dial(ctx, mustURL(t, s.AMQPURL, broker.Change{User: user, Password: password, Vhost: vhost}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	var refused *amqp.Error
	if _, err := ch.QueueDeclare("q", true, false, false, false, nil); !errors.As(err, &refused) || refused.Code != amqp.AccessRefused {
		t.Errorf("a user without the right declares a queue: %v", err)
	}
	notAdmin, err := broker.NewAdmin("http://" + "guest:wrong@" + managementHost(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := notAdmin.Vhosts(ctx); err == nil || !strings.Contains(err.Error(), "administrator") || strings.Contains(err.Error(), "wrong@") {
		t.Errorf("wrong password: %v", err)
	}
}

func TestCloseConnectionsAndDepths(t *testing.T) {
	s := servertest.New(t)
	ctx := t.Context()
	ch, err := s.Conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare("q", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.Publish("", "q", false, false, amqp.Publishing{}); err != nil {
		t.Fatal(err)
	}
	closed := s.Conn.NotifyClose(make(chan *amqp.Error, 1))
	deadline := time.After(20 * time.Second)
	sawDepth, gone := false, false
	for !sawDepth || !gone {
		depths, err := s.Admin.Depths(ctx, s.Name)
		if err != nil {
			t.Fatal(err)
		}
		sawDepth = sawDepth || depths["q"] == 1
		if sawDepth && !gone {
			if _, err := s.Admin.CloseConnections(ctx, s.Name); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-closed:
			gone, closed = true, nil
		case <-time.After(100 * time.Millisecond):
		case <-deadline:
			t.Fatalf("depths %v, connection closed: %t", depths, gone)
		}
	}
}

func TestURL(t *testing.T) {
	u, err := amqp.ParseURI(mustURL(t, "amqp://a:b@h:1/x", broker.Change{User: "u@x", Password: "p/:?", Address: "[::1]:2", Vhost: "a/b%c d"}))
	if err != nil {
		t.Fatal(err)
	}
	if u.Username != "u@x" || u.Password != "p/:?" || u.Host != "::1" || u.Port != 2 || u.Vhost != "a/b%c d" {
		t.Errorf("read as %+v", u)
	}
	u, err = amqp.ParseURI(mustURL(t, "amqp://a:b@h:1/x", broker.Change{Vhost: "/"}))
	if err != nil || u.Vhost != "/" {
		t.Errorf("the default virtual host is read as %q, %v", u.Vhost, err)
	}
	if got, err := broker.ManagementURL("amqp://a:b@h:1/x"); err != nil || got != "http://a:b@h:15672" {
		t.Errorf("management: %s, %v", got, err)
	}
	if got := broker.Redact("amqp://a:secret@h/x"); strings.Contains(got, "secret") {
		t.Errorf("redacted: %s", got)
	}
}

func mustURL(t *testing.T, base string, c broker.Change) string {
	t.Helper()
	u, err := broker.URL(base, c)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func managementHost(t *testing.T) string {
	t.Helper()
	at, err := state.LoadServers()
	if err != nil {
		t.Fatal(err)
	}
	if at.Management == "" {
		if at.Management, err = broker.ManagementURL(at.AMQP); err != nil {
			t.Fatal(err)
		}
	}
	u, err := url.Parse(at.Management)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// Gathered writes arrive whole and in order, also when more is published than
// may wait, and a broken connection shows.
func TestGatherWrites(t *testing.T) {
	s := servertest.New(t)
	var socket net.Conn
	conn, err := broker.Dial(t.Context(), s.AMQPURL, func(c *amqp.Config) {
		dial := c.Dial
		c.Dial = func(network, addr string) (_ net.Conn, err error) {
			socket, err = dial(network, addr)
			return socket, err
		}
	}, broker.GatherWrites)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare("q", false, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	const n, size = 200, 20_000
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation, n))
	for i := range n {
		if err := ch.Publish("", "q", false, false, amqp.Publishing{Body: bytes.Repeat([]byte{byte(i)}, size)}); err != nil {
			t.Fatal(err)
		}
	}
	for range n {
		if c := <-confirms; !c.Ack {
			t.Fatal("not confirmed")
		}
	}
	for i := range n {
		m, ok, err := ch.Get("q", true)
		if err != nil || !ok || len(m.Body) != size || m.Body[0] != byte(i) || m.Body[size-1] != byte(i) {
			t.Fatalf("message %d: %d bytes, %t, %v", i, len(m.Body), ok, err)
		}
	}
	closed := conn.NotifyClose(make(chan *amqp.Error, 1))
	if err := socket.Close(); err != nil {
		t.Fatal(err)
	}
	<-closed
	if err := ch.Publish("", "q", false, false, amqp.Publishing{}); err == nil {
		t.Error("a publish over a broken connection: no error")
	}
}
