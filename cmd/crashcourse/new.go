package main

import (
	"errors"

	"github.com/spf13/cobra"

	"crashcourse/cmd/crashcourse/internal/skeleton"
)

func newNew() *cobra.Command {
	return &cobra.Command{
		Use:   "new PATTERN",
		Short: "Make the skeleton of a new pattern, for authors",
		Long: `Make a package, an exercise with its judge, a reference, an alternative, two
mutants and a notebook. It is small and whole: it passes verify and the tests as
it is. Replace it piece by piece; docs/add-a-pattern.md says how. Nothing is
overwritten.`,
		Example: `  crashcourse new breaker
  crashcourse verify breaker`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("%s takes the name of one pattern, such as breaker", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			root, _, err := folders()
			if err != nil {
				return err
			}
			made, err := skeleton.Make(root, args[0])
			if errors.Is(err, skeleton.ErrName) {
				return usagef("%w", err)
			}
			if err != nil {
				return err
			}
			for _, path := range made {
				cmd.Println("made", path)
			}
			cmd.Printf("\nIt is whole as it is: `crashcourse verify %s`. Then see docs/add-a-pattern.md.\n", args[0])
			return nil
		},
	}
}
