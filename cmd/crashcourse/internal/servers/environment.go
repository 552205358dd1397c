package servers

import (
	"fmt"
	"net/url"
	"os"

	"crashcourse/pkg/state"
)

// fromEnvironment returns the servers that the environment names; ok is false
// when it names none.
func fromEnvironment() (s state.Servers, ok bool, err error) {
	if os.Getenv(state.PostgresEnv) == "" && os.Getenv(state.AMQPEnv) == "" {
		return state.Servers{}, false, nil
	}
	s, err = state.LoadServers()
	if err != nil {
		return state.Servers{}, false, err
	}
	for _, v := range []struct{ name, value, scheme string }{
		{state.PostgresEnv, s.Postgres, "postgres://user:password@host:5432/database"},
		{state.AMQPEnv, s.AMQP, "amqp://user:password@host:5672/"},
		{state.ManagementEnv, s.Management, "http://user:password@host:15672"},
	} {
		u, err := url.Parse(v.value)
		if err != nil || u.Host == "" || u.Scheme == "" {
			return state.Servers{}, false, fmt.Errorf("servers: %s is not an address: write it as %s", v.name, v.scheme)
		}
	}
	return s, true, nil
}
