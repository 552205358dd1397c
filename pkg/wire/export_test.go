package wire

// URLsForTest returns the addresses of the tests' own database and virtual host.
func URLsForTest() (postgres, amqp string) { return servers.pgURL, servers.amqpURL }
