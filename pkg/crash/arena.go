package crash

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"crashcourse/pkg/broker"
	"crashcourse/pkg/postgres"
	"crashcourse/pkg/state"
	"crashcourse/pkg/wire"
)

// Arena is the place of one run after another: a database and a virtual host of
// its own, made once and emptied between runs, which is a hundred times quicker.
// One run uses it at a time.
type Arena struct {
	Name   string
	DB     *pgxpool.Pool    // the judge's own sessions, past the proxy
	Writer *pgxpool.Pool    // sessions with the answer's rights, past the proxy: a trigger that an answer made runs with no more than these
	Conn   *amqp.Connection // the judge's own, past the proxy
	Role   string           // the answer's role

	answerPostgres string // the answer's address of the real server
	answerAMQP     string
	postgresHost   string
	amqpHost       string
	grants         string
	uid            uint32 // the user that processes under test run as; 0: the judge's
	scratch        string
	nursery        *nursery
	addrs          []string // where the process of each slot may listen
	lock           *pgx.Conn
	proxy          *wire.Proxy // of the run under way
}

// card is what is remembered of an arena between judges.
type card struct {
	Schema           string `json:"schema"` // hash of what made the tables
	PostgresPassword string `json:"postgres_password"`
	AMQPPassword     string `json:"amqp_password"`
}

// writerName tells the judge's sessions with the answer's rights from the
// answer's own.
const writerName = "crashcourse writer"

// errArenaTaken means that another judge uses the arena.
// Since returns the messages of the run under way that passed after the one
// numbered seq; 0 gives all. A scenario reads from them what no table says, such
// as which deliveries a process has in hand.
func (a *Arena) Since(seq int) []wire.Message {
	if a.proxy == nil {
		return nil
	}
	return a.proxy.Since(seq)
}

var errArenaTaken = errors.New("crash: the arena is taken")

// openArena opens arena number slot for the exercises of one pattern. It returns
// errArenaTaken when another judge has it.
func openArena(ctx context.Context, servers state.Servers, spec *Spec, slot int, scratch string, n *nursery) (_ *Arena, err error) {
	pattern, _, _ := strings.Cut(spec.ID, "/")
	a := &Arena{Name: fmt.Sprintf("crashcourse_judge_%s_%d", pattern, slot), scratch: scratch, nursery: n, grants: spec.Grants}
	a.Role = a.Name
	if os.Geteuid() == 0 {
		a.uid = 61_000 + uint32(slot) // no such user: it owns nothing
	}
	defer func() {
		if err != nil {
			a.close()
		}
	}()

	a.lock, err = pgx.Connect(ctx, servers.Postgres)
	if err != nil {
		return nil, fmt.Errorf("crash: open the session that locks an arena: %w", err)
	}
	h := fnv.New64a()
	h.Write([]byte(a.Name))
	var ours bool
	if err := a.lock.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", int64(h.Sum64())).Scan(&ours); err != nil {
		return nil, fmt.Errorf("crash: lock arena %s: %w", a.Name, err)
	}
	if !ours {
		return nil, errArenaTaken
	}

	file, err := cardFile(a.Name, servers)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(spec.Schema + "\x00" + spec.Grants + "\x00" + strings.Join(slices.Concat(spec.Queues, spec.Exchanges), " ")))
	want := card{Schema: hex.EncodeToString(sum[:])}
	var have card
	if b, err := os.ReadFile(file); err == nil {
		_ = json.Unmarshal(b, &have) // damaged: the arena is made again
	}
	if have.Schema == want.Schema && a.connect(ctx, servers, have) == nil {
		return a, nil
	}
	a.closeSessions()
	if want, err = a.make(ctx, servers, spec, want); err != nil {
		return nil, err
	}
	if err := a.connect(ctx, servers, want); err != nil {
		return nil, err
	}
	b, err := json.Marshal(want)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return nil, fmt.Errorf("crash: remember arena %s: %w", a.Name, err)
	}
	return a, nil
}

// cardFile is where an arena's card is kept: by server, for there may be others
// tomorrow.
func cardFile(name string, servers state.Servers) (string, error) {
	dir, err := state.Dir()
	if err != nil { // judged from somebody else's module
		cache, none := os.UserCacheDir()
		if none != nil {
			return "", errors.Join(err, none)
		}
		dir = filepath.Join(cache, "crashcourse")
	}
	sum := sha256.Sum256([]byte(servers.Postgres + servers.AMQP))
	dir = filepath.Join(dir, "arenas")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("crash: %w", err)
	}
	return filepath.Join(dir, name+"-"+hex.EncodeToString(sum[:4])+".json"), nil
}

// make makes the arena's database, virtual host and users.
func (a *Arena) make(ctx context.Context, servers state.Servers, spec *Spec, c card) (card, error) {
	admin, err := postgres.Open(ctx, servers.Postgres)
	if err != nil {
		return c, err
	}
	defer admin.Close()
	if c.PostgresPassword, err = postgres.CreateRole(ctx, admin, a.Role, postgres.RoleOptions{ConnectionLimit: 60}); err != nil {
		return c, err
	}
	if err = postgres.CreateDatabase(ctx, admin, a.Name, postgres.DatabaseOptions{Replace: true}); err != nil {
		return c, err
	}
	// A crash of the server is not among the faults: waiting for the disk at each
	// commit would only slow the judge down.
	if _, err = admin.Exec(ctx, "ALTER DATABASE "+quote(a.Name)+" SET synchronous_commit = off"); err != nil {
		return c, fmt.Errorf("crash: set up database %s: %w", a.Name, err)
	}
	url, err := postgres.URL(servers.Postgres, postgres.Change{Database: a.Name})
	if err != nil {
		return c, err
	}
	db, err := postgres.Open(ctx, url)
	if err != nil {
		return c, err
	}
	defer db.Close()
	if _, err = db.Exec(ctx, a.fill(spec.Schema)); err != nil {
		return c, fmt.Errorf("crash: make the tables of %s: %w", spec.ID, err)
	}
	if err = a.grant(ctx, db); err != nil {
		return c, err
	}

	mq, err := broker.NewAdmin(servers.Management)
	if err != nil {
		return c, err
	}
	if err = mq.DeleteVhost(ctx, a.Name); err != nil {
		return c, err
	}
	if err = mq.EnsureVhost(ctx, a.Name); err != nil {
		return c, err
	}
	own := `events|answer\..*`
	for _, name := range slices.Concat(spec.Queues, spec.Exchanges) {
		own += "|" + regexp.QuoteMeta(name)
	}
	c.AMQPPassword, err = mq.EnsureUser(ctx, a.Role, a.Name, broker.Permissions{
		Configure: `^(` + own + `)$`,
		Write:     `^(` + own + `|amq\.default)$`,
		Read:      `^(` + own + `)$`,
	})
	return c, err
}

func (a *Arena) fill(sql string) string {
	return strings.ReplaceAll(sql, "{{answer}}", quote(a.Role))
}

func (a *Arena) grant(ctx context.Context, db *pgxpool.Pool) error {
	sql := "GRANT CONNECT, TEMPORARY ON DATABASE " + quote(a.Name) + " TO {{answer}};\n" +
		"GRANT USAGE, CREATE ON SCHEMA public TO {{answer}};\n" + a.grants
	if _, err := db.Exec(ctx, a.fill(sql)); err != nil {
		return fmt.Errorf("crash: grant the answer its rights: %w", err)
	}
	return nil
}

// connect opens the arena's sessions.
func (a *Arena) connect(ctx context.Context, servers state.Servers, c card) error {
	own, err := postgres.URL(servers.Postgres, postgres.Change{Database: a.Name, Params: map[string]string{"application_name": "crashcourse judge"}})
	if err != nil {
		return err
	}
	if a.answerPostgres, err = postgres.URL(servers.Postgres, postgres.Change{Database: a.Name, User: a.Role, Password: c.PostgresPassword}); err != nil {
		return err
	}
	if a.DB, err = postgres.Open(ctx, own, func(c *pgxpool.Config) {
		c.MaxConns = 4
		// What an answer creates must not be found in place of the real thing.
		c.ConnConfig.RuntimeParams["search_path"] = "pg_catalog"
	}); err != nil {
		return err
	}
	if a.Writer, err = postgres.Open(ctx, a.answerPostgres, func(c *pgxpool.Config) {
		c.MaxConns = 4
		c.ConnConfig.RuntimeParams["application_name"] = writerName
	}); err != nil {
		return err
	}
	config := a.DB.Config().ConnConfig
	a.postgresHost = fmt.Sprintf("%s:%d", config.Host, config.Port)

	url, err := broker.URL(servers.AMQP, broker.Change{Vhost: a.Name})
	if err != nil {
		return err
	}
	if a.answerAMQP, err = broker.URL(servers.AMQP, broker.Change{Vhost: a.Name, User: a.Role, Password: c.AMQPPassword}); err != nil {
		return err
	}
	parsed, err := amqp.ParseURI(servers.AMQP)
	if err != nil {
		return fmt.Errorf("crash: read the broker's address: %w", err)
	}
	a.amqpHost = fmt.Sprintf("%s:%d", parsed.Host, parsed.Port)
	if a.Conn, err = broker.Dial(ctx, url); err != nil {
		return err
	}
	probe, err := broker.Dial(ctx, a.answerAMQP)
	if err != nil {
		return err
	}
	return probe.Close()
}

// hasOwn says whether an answer made something in the database beside rows.
func (a *Arena) hasOwn(ctx context.Context) (made bool, err error) {
	err = a.DB.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid
		               WHERE r.rolname = $1 AND d.deptype = 'o'
		                 AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()))
		    OR EXISTS (SELECT FROM pg_trigger WHERE NOT tgisinternal)
		    OR EXISTS (SELECT FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole WHERE r.rolname = $1)`,
		a.Role).Scan(&made)
	if err != nil {
		return false, fmt.Errorf("crash: look for what the answer made: %w", err)
	}
	return made, nil
}

// Clean removes what an answer made in the database beside rows.
func (a *Arena) Clean(ctx context.Context) error {
	made, err := a.hasOwn(ctx)
	if err != nil || !made {
		return err
	}
	rows, err := a.DB.Query(ctx, `SELECT format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass) FROM pg_trigger WHERE NOT tgisinternal`)
	if err != nil {
		return fmt.Errorf("crash: list triggers: %w", err)
	}
	drops, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("crash: list triggers: %w", err)
	}
	for _, sql := range append(drops, "DROP OWNED BY "+quote(a.Role)+" CASCADE", "ALTER ROLE "+quote(a.Role)+" RESET ALL") {
		if _, err := a.DB.Exec(ctx, sql); err != nil {
			return fmt.Errorf("crash: remove what the answer made: %w", err)
		}
	}
	return a.grant(ctx, a.DB)
}

// own gives a folder to the user that processes under test run as.
func (a *Arena) own(dir string) error {
	if a.uid == 0 {
		return nil
	}
	if err := os.Chown(dir, int(a.uid), int(a.uid)); err != nil {
		return fmt.Errorf("crash: give the process its folder: %w", err)
	}
	return nil
}

func (a *Arena) closeSessions() {
	if a.DB != nil {
		a.DB.Close()
		a.DB = nil
	}
	if a.Writer != nil {
		a.Writer.Close()
		a.Writer = nil
	}
	if a.Conn != nil {
		_ = a.Conn.Close()
		a.Conn = nil
	}
}

func (a *Arena) close() {
	a.closeSessions()
	if a.lock != nil {
		_ = a.lock.Close(context.Background()) // frees the lock
		a.lock = nil
	}
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }
