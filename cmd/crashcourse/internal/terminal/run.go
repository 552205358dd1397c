package terminal

import (
	"context"
	"fmt"
	"os"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
)

// Run shows m on the terminal of in and out, until somebody quits or ctx ends.
// The terminal is then as it was.
func Run(ctx context.Context, m *Model, in, out *os.File) error {
	options := []tea.ProgramOption{tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out), tea.WithoutSignalHandler()}
	if os.Getenv("NO_COLOR") != "" {
		options = append(options, tea.WithColorProfile(colorprofile.ASCII))
	}
	if _, err := tea.NewProgram(m, options...).Run(); err != nil {
		return fmt.Errorf("show the run in the terminal: %w", err)
	}
	return nil
}
