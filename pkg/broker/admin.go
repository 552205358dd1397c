package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	rabbithole "github.com/michaelklishin/rabbit-hole/v3"
)

// Permissions are three regular expressions over names of exchanges and queues:
// what a user may make and delete, publish to and bind, consume and bind from.
// An empty one allows nothing.
type Permissions = rabbithole.Permissions

// Everything allows all in one virtual host.
var Everything = Permissions{Configure: ".*", Write: ".*", Read: ".*"}

// AdminTimeout bounds each call of the management API, unless its context ends
// before.
const AdminTimeout = 30 * time.Second

// Admin makes and removes virtual hosts and users through the management API of
// one server. It holds no connection and needs no closing. It may be used by
// several goroutines at once.
type Admin struct {
	endpoint       string // without credentials
	user, password string
}

// NewAdmin returns an Admin for the management API at managementURL, such as
// http://user:password@host:15672. It does not dial. The user needs the tag
// administrator.
func NewAdmin(managementURL string) (*Admin, error) {
	u, err := url.Parse(managementURL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, errors.New("broker: the address of the management API cannot be read, it should look like http://user:password@host:15672")
	}
	a := &Admin{user: "guest", password: "guest"}
	if u.User != nil {
		a.user = u.User.Username()
		a.password, _ = u.User.Password()
	}
	u.User = nil
	u.Path, u.RawPath, u.RawQuery = "", "", ""
	a.endpoint = u.String()
	return a, nil
}

// EnsureVhost makes a virtual host, and gives the administrator all rights in
// it. One of that name that exists already is left as it is.
func (a *Admin) EnsureVhost(ctx context.Context, name string) error {
	err := a.call(ctx, fmt.Sprintf("create virtual host %q", name), func(c *rabbithole.Client) (*http.Response, error) {
		return c.PutVhost(name, rabbithole.VhostSettings{})
	})
	if err != nil {
		return err
	}
	return a.SetPermissions(ctx, name, a.user, Everything)
}

// DeleteVhost removes a virtual host with all its queues and messages, and ends
// the connections to it. One that does not exist is no error.
func (a *Admin) DeleteVhost(ctx context.Context, name string) error {
	return a.call(ctx, fmt.Sprintf("delete virtual host %q", name), func(c *rabbithole.Client) (*http.Response, error) {
		return c.DeleteVhost(name)
	})
}

// Vhosts returns the names of all virtual hosts.
func (a *Admin) Vhosts(ctx context.Context) ([]string, error) {
	var names []string
	err := a.call(ctx, "list virtual hosts", func(c *rabbithole.Client) (*http.Response, error) {
		all, err := c.ListVhosts()
		for _, v := range all {
			names = append(names, v.Name)
		}
		return nil, err
	})
	return names, err
}

// EnsureUser makes a user without tags, who can log in and nothing else, with
// permissions in one virtual host, and returns the password, which is random. A
// user of that name that exists already gets the new password, loses its tags,
// and keeps its permissions in other virtual hosts.
func (a *Admin) EnsureUser(ctx context.Context, name, vhost string, p Permissions) (password string, err error) {
	password = rand.Text()
	err = a.call(ctx, fmt.Sprintf("create user %q", name), func(c *rabbithole.Client) (*http.Response, error) {
		return c.PutUser(name, rabbithole.UserSettings{Name: name, Password: password})
	})
	if err != nil {
		return "", err
	}
	return password, a.SetPermissions(ctx, vhost, name, p)
}

// DeleteUser removes a user. One that does not exist is no error.
func (a *Admin) DeleteUser(ctx context.Context, name string) error {
	return a.call(ctx, fmt.Sprintf("delete user %q", name), func(c *rabbithole.Client) (*http.Response, error) {
		return c.DeleteUser(name)
	})
}

// SetPermissions says what a user may do in a virtual host.
func (a *Admin) SetPermissions(ctx context.Context, vhost, user string, p Permissions) error {
	return a.call(ctx, fmt.Sprintf("set the permissions of user %q in virtual host %q", user, vhost), func(c *rabbithole.Client) (*http.Response, error) {
		return c.UpdatePermissionsIn(vhost, user, p)
	})
}

// Depths returns how many messages each queue of a virtual host holds, ready or
// unacknowledged. The server refreshes the figures every five seconds or so:
// for a figure of now, use amqp091-go's QueueDeclarePassive, which counts the
// ready ones.
func (a *Admin) Depths(ctx context.Context, vhost string) (map[string]int, error) {
	depths := map[string]int{}
	err := a.call(ctx, fmt.Sprintf("list the queues of virtual host %q", vhost), func(c *rabbithole.Client) (*http.Response, error) {
		queues, err := c.ListQueuesIn(vhost)
		for _, q := range queues {
			depths[q.Name] = q.Messages
		}
		return nil, err
	})
	return depths, err
}

// CloseConnections ends every connection to a virtual host that the server
// lists, and returns how many those were. A connection appears in the list up
// to five seconds after it was made.
func (a *Admin) CloseConnections(ctx context.Context, vhost string) (int, error) {
	var names []string
	err := a.call(ctx, "list connections", func(c *rabbithole.Client) (*http.Response, error) {
		all, err := c.ListConnections()
		for _, conn := range all {
			if conn.Vhost == vhost {
				names = append(names, conn.Name)
			}
		}
		return nil, err
	})
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		err := a.call(ctx, fmt.Sprintf("close connection %q", name), func(c *rabbithole.Client) (*http.Response, error) {
			return c.CloseConnection(name)
		})
		if err != nil {
			return 0, err
		}
	}
	return len(names), nil
}

// call runs f with a client bound to ctx, and explains its error.
func (a *Admin) call(ctx context.Context, what string, f func(*rabbithole.Client) (*http.Response, error)) error {
	ctx, cancel := context.WithTimeout(ctx, AdminTimeout)
	defer cancel()
	c, err := rabbithole.NewTLSClient(a.endpoint, a.user, a.password, boundTransport{ctx})
	if err != nil {
		return fmt.Errorf("broker: %s: %w", what, err)
	}
	res, err := f(c)
	if res != nil && res.Body != nil {
		_ = res.Body.Close()
	}
	if err == nil {
		return nil
	}
	var op *net.OpError
	var answer rabbithole.ErrorResponse
	switch {
	case errors.As(err, &answer) && answer.StatusCode == http.StatusForbidden, err.Error() == "Error: API responded with a 401 Unauthorized":
		return fmt.Errorf("broker: %s: the management API at %s refused user %q; it needs the right password and the tag administrator: %w", what, a.endpoint, a.user, err)
	case errors.As(err, &op):
		return fmt.Errorf("broker: %s: nothing answers at %s; start the server with the management plugin, or correct the address: %w", what, a.endpoint, err)
	}
	return fmt.Errorf("broker: %s: %w", what, err)
}

// boundTransport gives the requests of a client that knows no contexts one.
type boundTransport struct{ ctx context.Context }

func (t boundTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return http.DefaultTransport.RoundTrip(r.WithContext(t.ctx))
}
