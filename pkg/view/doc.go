// Package view shows what the engine found: the report of a verdict and the
// sequence diagram of a trace, as text for terminals and as HTML or SVG for
// notebooks and files.
//
// # A verdict
//
// [Text] writes a [crash.Verdict] for a terminal. A passing verdict is a few
// lines; a failing one tells where the fault struck, what the tables held, what a
// right program would have had, one hint, and the command that replays the run:
//
//	err := view.Text(os.Stdout, verdict, view.TextOptions{})
//
// [HTML] draws the same for the text/html output of a notebook cell, with the
// crash matrix and the sequence diagram of the failing run; [Document] makes a
// page of its own of it. [MatrixText] and [MatrixHTML] draw the matrix alone, for
// a notebook that sweeps a program to show where it breaks.
//
// # A trace
//
// [TraceText], [TraceHTML] and [TraceSVG] draw a [wire.Trace]. Each server has a
// lane, and each process that ran at the same time; a process that replaces a
// crashed one goes on in its lane. A write that was not committed when it passed
// is dashed, and the bar beside PostgreSQL's lane ends in a dot when its
// transaction was kept and in a cross when it was rolled back. A long trace is
// shown around its faults, and each gap says how many messages it hides; a
// cycle that repeats, such as an idle poll, is shown once.
//
// # A recording
//
// [RecordedHTML] and [RecordedPage] draw a [Recording] as the view that moves.
// [NewList] lays it out as a list, and [Compare] marks the rows of its tables,
// for whoever shows it elsewhere, such as in a terminal.
//
// # What is promised
//
// Names, SQL, rows and output come from programs under test. They are escaped,
// cut, and rid of terminal escapes, control characters and marks that turn the
// direction of text. A fragment has no ids, scripts, links or requests, and
// takes at most [MaxHTML] bytes. Whatever was left out is counted in words.
// Colour is never the only sign. All words are in one file, words.go.
//
// A nil trace and a zero verdict are drawn as empty ones. The functions keep no
// state: they may be called at the same time.
//
// # For a view that moves
//
// What is shown, and what a message means, is decided once, in the layout that
// the text and the SVG share (diagram.go). The lines and labels of a drawn
// message carry its number in the trace as data-seq, and a row of the matrix its
// point as data-point, so that a script that has the trace's JSON beside it can
// find them.
package view
