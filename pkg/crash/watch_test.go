package crash_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"crashcourse/pkg/crash"
)

// busy is careful, and has a second connection on which it never rests.
func busy(ctx context.Context) error {
	return move(ctx, func(conn *pgx.Conn, id int) error {
		if beside == nil {
			var err error
			if beside, err = pgx.Connect(ctx, os.Getenv("DATABASE_URL")); err != nil {
				return err
			}
			go func() {
				for {
					if _, err := beside.Exec(ctx, "DELETE FROM done WHERE id < $1", 0); err != nil {
						return
					}
					time.Sleep(20 * time.Millisecond)
				}
			}()
		}
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "INSERT INTO done VALUES ($1)", id); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "DELETE FROM todo WHERE id = $1", id)
			return err
		})
	})
}

var beside *pgx.Conn // of the process that is busy

// TestBusyBehindABlackhole has one of two connections go dark, while the process works
// on by the other: it is ended all the same.
func TestBusyBehindABlackhole(t *testing.T) {
	schedule, err := crash.ParseSchedule("blackhole@p1.pg1>4")
	if err != nil {
		t.Fatal(err)
	}
	v := judgeCharging(t, movingSpec(), "busy", crash.Options{Seed: 1, Schedule: schedule})
	if v.Verdict != crash.Pass || v.Runs != 1 {
		t.Errorf("%s after %d runs, %s %+v", v.Verdict, v.Runs, v.Error, v.Failure)
	}
}
