package main

import (
	"github.com/spf13/cobra"

	"crashcourse/cmd/crashcourse/internal/jupyter"
)

// newKernel is what the kernelspec starts; people have no use for it.
func newKernel() *cobra.Command {
	return &cobra.Command{
		Use:    "kernel CONNECTION_FILE",
		Short:  "Become the notebook kernel (started by Jupyter)",
		Hidden: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("%s takes one argument, the connection file", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			root, dir, err := folders()
			if err != nil {
				return err
			}
			return jupyter.Exec(cmd.Context(), jupyter.Options{Root: root, State: dir}, args[0])
		},
	}
}
