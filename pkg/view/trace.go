package view

// TraceOptions says how a trace is drawn. The zero value suits most.
type TraceOptions struct {
	// Title is the picture's accessible name.
	Title string
	// Point and Fault tell where a fault struck, for a trace that does not record
	// it in [wire.Message.Fault]. Point is written as [wire.Point.String] does.
	Point, Fault string
	// Broken names the invariants that broke; they are marked at the end.
	Broken string
	// Steps is how many messages are shown, about; 0 means 36. Those around a
	// fault are kept, then the first and the last; the others become gaps that
	// say how many they hide.
	Steps int
	// Width is the width of a line in columns, for text only; 0 means that of the
	// terminal, or 80.
	Width int
	// Colour says whether text has colours.
	Colour Colour
}
