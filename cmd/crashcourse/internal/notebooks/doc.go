// Package notebooks tests the course's notebooks: their form, and that each of
// them runs from top to bottom in the real kernel, through a real Jupyter
// client, again and again. It needs both servers:
//
//	crashcourse up -- go test ./cmd/crashcourse/internal/notebooks
//
// The learner's own progress is left alone: the tests work in a state folder of
// their own that borrows what takes long to set up.
package notebooks
