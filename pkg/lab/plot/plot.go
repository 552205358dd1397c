// Package plot draws measurements for a notebook: each value as a dot, or one
// bar for each name. It is apart from package lab because the library that draws
// takes a while to link.
//
//	plot.Dots{
//		Title:  "From commit to delivery",
//		Unit:   "ms",
//		Groups: []plot.Group{{Name: "polling", Values: a}, {Name: "notify", Values: b}},
//	}.Show()
//
// A picture has a title for those who do not see it, and the same figures as
// text. It follows the page's colours.
package plot

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/go-analyze/charts"

	"crashcourse/pkg/lab"
)

// Group is measurements of the same kind.
type Group struct {
	Name   string
	Values []float64 // more than 0 in Dots; any in Bars, which draws the median
}

// Dots is a picture with one column of dots for each group, on a logarithmic
// scale: each dot is a value, so that the exceptions show as well as the rule.
type Dots struct {
	Title  string
	Unit   string
	Groups []Group
}

// Bars is a picture with one bar for each group.
type Bars struct {
	Title  string
	Unit   string
	Groups []Group
}

const (
	width  = 640
	height = 300
	small  = 9 // of letters
	large  = 11
)

// Show shows the picture as the cell's output. It ends the cell if there is
// nothing to draw.
func (d Dots) Show() {
	svg, err := d.svg()
	show(d.Title, svg, err, table(d.Unit, d.Groups, true))
}

// Show shows the picture as the cell's output. It ends the cell if there is
// nothing to draw.
func (b Bars) Show() {
	svg, err := b.svg()
	show(b.Title, svg, err, table(b.Unit, b.Groups, false))
}

func show(title, svg string, err error, t [][]string) {
	if err != nil {
		lab.Fatal(fmt.Errorf("plot: draw %q: %w", title, err))
	}
	// The figures under the picture are its text, for whoever does not see it.
	svg = strings.Replace(svg, "<svg ", `<svg role="img" aria-label="`+html.EscapeString(title)+`: the figures are in the table below" style="display:block;width:100%;max-width:640px;height:auto" `, 1)
	rich, text := lab.Grid(title, t[0], t[1:])
	lab.Show(`<div style="color:var(--jp-content-font-color1,inherit)">`+svg+rich+"</div>", text)
}

func (d Dots) svg() (string, error) {
	if err := check(d.Groups, true); err != nil {
		return "", err
	}
	low, high := math.Inf(1), math.Inf(-1)
	values := make([][]float64, len(d.Groups))
	for i, g := range d.Groups {
		for _, v := range g.Values {
			l := math.Log10(v)
			low, high = min(low, l), max(high, l)
			values[i] = append(values[i], l)
		}
	}
	low, high = math.Floor(low), math.Ceil(high)
	o := charts.NewScatterChartOptionWithSeries(charts.NewSeriesListScatterMultiValue([][][]float64{values}))
	o.Theme = theme()
	o.Title.Text = d.Title + " (" + d.Unit + ")"
	o.Title.FontStyle.FontSize = large
	o.XAxis.Labels = names(d.Groups)
	o.XAxis.LabelFontStyle.FontSize = small
	o.XAxis.LabelCount = len(d.Groups)
	o.XAxis.BoundaryGap = charts.Ptr(true)
	o.YAxis = []charts.YAxisOption{{LabelFontStyle: charts.FontStyle{FontSize: small}, Min: &low, Max: &high, LabelCount: int(high-low) + 1,
		ValueFormatter: func(l float64) string { return short(math.Pow(10, l)) }}}
	o.Symbol = charts.Symbol{Shape: charts.SymbolCircle, Size: 3}
	p := painter()
	if err := p.ScatterChart(o); err != nil {
		return "", err
	}
	return render(p)
}

func (b Bars) svg() (string, error) {
	if err := check(b.Groups, false); err != nil {
		return "", err
	}
	var values []float64
	for _, g := range b.Groups {
		values = append(values, quantile(g.Values, 0.5))
	}
	o := charts.NewBarChartOptionWithData([][]float64{values})
	o.Theme = theme()
	o.Title.Text = b.Title + " (" + b.Unit + ")"
	o.Title.FontStyle.FontSize = large
	o.CategoryAxis.Labels = names(b.Groups)
	o.CategoryAxis.LabelFontStyle.FontSize = small
	o.ValueAxis = []charts.ValueAxisOption{{LabelFontStyle: charts.FontStyle{FontSize: small}, Min: charts.Ptr(0.0), ValueFormatter: short}}
	o.SeriesList[0].Label = charts.SeriesLabel{Show: charts.Ptr(true), ValueFormatter: short}
	p := painter()
	if err := p.BarChart(o); err != nil {
		return "", err
	}
	return render(p)
}

func check(groups []Group, positive bool) error {
	if len(groups) == 0 {
		return fmt.Errorf("there are no groups")
	}
	for _, g := range groups {
		if len(g.Values) == 0 {
			return fmt.Errorf("group %q has no values", g.Name)
		}
		for _, v := range g.Values {
			if math.IsNaN(v) || math.IsInf(v, 0) || positive && v <= 0 {
				return fmt.Errorf("group %q has the value %v, which has no place on the scale", g.Name, v)
			}
		}
	}
	return nil
}

func painter() *charts.Painter {
	return charts.NewPainter(charts.PainterOptions{OutputFormat: charts.ChartOutputSVG, Width: width, Height: height})
}

// ink stands for the page's colour of text until the picture is drawn.
var ink = charts.Color{R: 1, G: 2, B: 3, A: 255}

func theme() charts.ColorPalette {
	line := charts.Color{R: 128, G: 128, B: 128, A: 110}
	return charts.MakeTheme(charts.ThemeOption{
		AxisStrokeColor: line, AxisSplitLineColor: line, TextColor: ink,
		BackgroundColor: charts.Color{A: 0},
		SeriesColors:    []charts.Color{{R: 70, G: 135, B: 215, A: 255}},
	})
}

func render(p *charts.Painter) (string, error) {
	b, err := p.Bytes()
	if err != nil {
		return "", err
	}
	return strings.ReplaceAll(string(b), "rgb(1,2,3)", "currentColor"), nil
}

func names(groups []Group) []string {
	var out []string
	for _, g := range groups {
		out = append(out, g.Name)
	}
	return out
}

// table is the figures of a picture, under a header.
func table(unit string, groups []Group, spread bool) [][]string {
	rows := [][]string{{"", unit}}
	if spread {
		rows[0] = []string{"", "p50, " + unit, "p99, " + unit}
	}
	for _, g := range groups {
		row := []string{g.Name, short(quantile(g.Values, 0.5))}
		if spread {
			row = append(row, short(quantile(g.Values, 0.99)))
		}
		rows = append(rows, row)
	}
	return rows
}

// quantile returns the smallest value that a share q of all do not exceed.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	return s[max(0, int(math.Ceil(q*float64(len(s))))-1)]
}

// short writes a number with no more digits than matter.
func short(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return strconv.FormatFloat(math.Round(v), 'f', -1, 64)
	case a >= 10:
		return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64)
	}
	return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64)
}
