// Package broker opens sessions with a RabbitMQ server and, over its management
// API, makes the virtual hosts and users that tests, judges and notebooks work
// in.
//
//	conn, err := broker.Dial(ctx, os.Getenv("AMQP_URL"))
//	if err != nil {
//		return err // says what failed and what to do
//	}
//	defer conn.Close()
//
// To give somebody a virtual host of their own, and nothing else:
//
//	admin, err := broker.NewAdmin(managementURL)
//	err = admin.EnsureVhost(ctx, "judge_1")
//	password, err := admin.EnsureUser(ctx, "judge_1", "judge_1", broker.Everything)
//	url, err := broker.URL(adminURL, broker.Change{User: "judge_1", Password: password, Vhost: "judge_1"})
//
// Dial leaves amqp091-go's Config.Recovery off, and so should you: a recovered
// channel counts its delivery tags from one again, and a late ack then
// acknowledges a message that nobody has handled.
package broker
