// Package step runs programs whose every message to PostgreSQL, RabbitMQ and HTTP
// services waits until somebody lets it pass, and looks meanwhile at what the
// tables and queues hold.
//
//	s, err := step.Start(ctx, step.Config{
//		Title:    "place an order",
//		Works:    []step.Work{{Name: "place", Path: "./place"}},
//		Postgres: databaseURL,
//		AMQP:     amqpURL,
//	})
//	defer s.Close("")
//	feed := s.Follow()
//	for {
//		events, err := feed.Next(ctx) // what has changed: first all there is
//		…
//		err = s.Do(ctx, step.Command{Act: step.Pass}) // the next message passes
//	}
//
// A program takes its addresses from DATABASE_URL, AMQP_URL and, for each of
// [Config.Services], from [crash.ServiceEnv]. They lead through a proxy (see
// package wire). Commands let a message pass, crash a
// process, break its connections, start it again, or rewind: then the whole run
// is made anew up to some message. What a session has seen is a
// [view.Recording], which the view draws live and, once the session is over,
// plays again.
//
// The tables and queues are read from outside, so what a transaction has written
// shows only once it is committed. A queue that somebody consumes is counted,
// not read: reading it would take messages away from its consumer for a moment.
//
// A Session may be used from any number of goroutines; one Command is carried
// out at a time.
package step
