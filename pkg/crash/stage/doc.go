// Package stage holds what scenarios are built of: a [Listener] that records what
// reaches an exchange, a [Queue] that an answer consumes, [Hands] that follow which
// deliveries it has in hand, data that a seed decides, and words for reports.
//
// A [crash.Scenario] sets up the tables and queues of one run and checks them
// afterwards. What differs between exercises is the work and the invariants; the
// rest is here.
//
//	type shipping struct {
//		crash.Quiet // answers the calls that this scenario has no use for
//		arena    *crash.Arena
//		listener *stage.Listener
//	}
//
//	func (s *shipping) Reset(ctx context.Context) (err error) {
//		s.listener, err = stage.Listen(s.arena.Conn, "events", "#")
//		…
//	}
//
//	func (s *shipping) Check(ctx context.Context, faults int) ([]crash.Violation, error) {
//		if err := s.listener.Sync(ctx); err != nil { // all that was published before has arrived
//			return nil, err
//		}
//		for _, d := range s.listener.Arrived() {
//			…
//		}
//	}
package stage
