package view

// limits bounds a report, so that a trace of a million messages, a table of a
// million rows or a name of a million letters gives a page that still opens.
// Each is a count of what is shown; what is left out is always counted in words.
type limits struct {
	word, name, cell, sentence int // characters

	story, notes, invariants, hints int
	tables, rows, columns           int
	points, faults, wholes, details int
	steps                           int // rows of the diagram
	errorLines, outputLines         int
	lineWidth                       int // characters of a line of output
}

// roomy suits every verdict of a course.
func roomy() limits {
	return limits{
		word: 24, name: 80, cell: 120, sentence: 800,
		story: 40, notes: 20, invariants: 30, hints: 8,
		tables: 8, rows: 12, columns: 10,
		points: 96, faults: 12, wholes: 12, details: 3,
		steps:      36,
		errorLines: 40, outputLines: 40,
		lineWidth: 200,
	}
}

// tight holds [HTML] to its size whatever the verdict contains.
func tight() limits {
	return limits{
		word: 12, name: 40, cell: 30, sentence: 400,
		story: 12, notes: 6, invariants: 10, hints: 4,
		tables: 4, rows: 6, columns: 6,
		points: 24, faults: 8, wholes: 6, details: 1,
		steps:      20,
		errorLines: 12, outputLines: 12,
		lineWidth: 120,
	}
}
