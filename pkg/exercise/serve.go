package exercise

// Serve is the life of a process under test that a judge has started: it calls h
// as the judge asks, and returns when no further call can come. [Check] does it
// for graded answers; a demonstration in a notebook does it for itself.
func Serve(h Handler) { serve(h) }
