package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/postgres"
	"crashcourse/pkg/state"
)

// place is where a notebook works: a database and a virtual host, with a role
// and a user that may do anything there and nothing elsewhere.
type place struct {
	notebook string
	name     string // of database, role, virtual host and user
	servers  state.Servers
	file     string
	card     *card // nil until the first Fresh
}

// card is what is remembered of a place from one cell to the next.
type card struct {
	Postgres string `json:"database_url"`
	AMQP     string `json:"amqp_url"`
}

var validName = regexp.MustCompile(`^[a-z0-9_]{1,32}$`)

func findPlace(notebook string) (*place, error) {
	if !validName.MatchString(notebook) {
		return nil, fmt.Errorf("lab: %q is no notebook's name: use small letters, digits and _, as in 01_outbox", notebook)
	}
	servers, err := state.LoadServers()
	if err != nil {
		return nil, err
	}
	dir, err := state.Dir()
	if err != nil {
		return nil, err
	}
	// Other checkouts may use the same servers, and these may be others tomorrow.
	sum := sha256.Sum256([]byte(dir))
	p := &place{notebook: notebook, servers: servers, name: "crashcourse_" + hex.EncodeToString(sum[:3]) + "_" + notebook}
	sum = sha256.Sum256([]byte(servers.Postgres + servers.AMQP))
	p.file = filepath.Join(dir, "lab", notebook+"-"+hex.EncodeToString(sum[:4])+".json")
	if b, err := os.ReadFile(p.file); err == nil {
		var c card
		if json.Unmarshal(b, &c) == nil && c.Postgres != "" { // damaged: Fresh makes it again
			p.card = &c
		}
	}
	return p, nil
}

// make makes the place anew.
func (p *place) make(ctx context.Context) error {
	var c card
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		c.Postgres, err = p.makeDatabase(gctx)
		return err
	})
	g.Go(func() (err error) {
		c.AMQP, err = p.makeVhost(gctx)
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(p.file), 0o700); err != nil {
		return fmt.Errorf("lab: remember the notebook's database: %w", err)
	}
	if err := state.WriteFile(p.file, b, 0o600); err != nil {
		return err
	}
	p.card = &c
	return nil
}

func (p *place) makeDatabase(ctx context.Context) (url string, err error) {
	admin, err := postgres.Open(ctx, p.servers.Postgres)
	if err != nil {
		return "", p.down("PostgreSQL", err)
	}
	defer admin.Close()
	// Change data capture wants the right to replicate; where nobody may grant
	// it, all the rest still works.
	o := postgres.RoleOptions{Replication: true, ConnectionLimit: 60}
	password, err := postgres.CreateRole(ctx, admin, p.name, o)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "42501" {
		o.Replication = false
		password, err = postgres.CreateRole(ctx, admin, p.name, o)
	}
	if err != nil {
		return "", err
	}
	if err := postgres.CreateDatabase(ctx, admin, p.name, postgres.DatabaseOptions{Owner: p.name, Replace: true}); err != nil {
		return "", err
	}
	return postgres.URL(p.servers.Postgres, postgres.Change{Database: p.name, User: p.name, Password: password})
}

func (p *place) makeVhost(ctx context.Context) (url string, err error) {
	admin, err := broker.NewAdmin(p.servers.Management)
	if err != nil {
		return "", err
	}
	if err := admin.DeleteVhost(ctx, p.name); err != nil {
		return "", p.down("RabbitMQ", err)
	}
	if err := admin.EnsureVhost(ctx, p.name); err != nil {
		return "", err
	}
	password, err := admin.EnsureUser(ctx, p.name, p.name, broker.Everything)
	if err != nil {
		return "", err
	}
	return broker.URL(p.servers.AMQP, broker.Change{Vhost: p.name, User: p.name, Password: password})
}

func (p *place) notFresh() error {
	return fmt.Errorf("lab: notebook %s has no database yet: run its first code cell, then this one again", p.notebook)
}

// down says what to do when a server cannot be used.
func (p *place) down(server string, err error) error {
	if p.servers.Kind == "environment" {
		return fmt.Errorf("lab: %s cannot be used. Is the server that DATABASE_URL and AMQP_URL name up? If it is, run the notebook's first code cell again. (%w)", server, err)
	}
	return fmt.Errorf("lab: %s cannot be used. Run `crashcourse up` in a terminal, then the notebook's first code cell, then this one. (%w)", server, err)
}
