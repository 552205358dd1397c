package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"

	"crashcourse/cmd/crashcourse/internal/servers"
	"crashcourse/cmd/crashcourse/internal/steps"
)

func newDown() *cobra.Command {
	var purge bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop the servers that were started for this checkout",
		Long: `Stop the servers that "crashcourse up" or "crashcourse lab" started for this
checkout, and nothing else. Their data stays, unless you ask to have it removed.`,
		Example: `  crashcourse down
  crashcourse down --purge`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opt, err := serverOptions(steps.New(os.Stderr))
			if err != nil {
				return err
			}
			stop := servers.Down
			if purge {
				stop = servers.Purge
			}
			stopped, err := stop(cmd.Context(), opt)
			if err != nil {
				return err
			}
			if len(stopped) == 0 {
				cmd.Println("Nothing was running that was started here.")
				return nil
			}
			cmd.Printf("Stopped %s.\n", strings.Join(stopped, ", "))
			return nil
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "remove the servers' data as well")
	return cmd
}
