package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/go-analyze/charts"
)

// draw makes the pictures of the page.
func draw(dir string, quick, kills []judged) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, e := range exercises(quick) {
		list := of(quick, func(j judged) bool { return j.short() == e })
		if err := heat(filepath.Join(dir, "kinds-"+e+".svg"), e, list); err != nil {
			return fmt.Errorf("draw the kinds of %s: %w", e, err)
		}
	}
	if err := chances(filepath.Join(dir, "random.svg"), kills); err != nil {
		return fmt.Errorf("draw the chances: %w", err)
	}
	return nil
}

const (
	width = 760
	row   = 15 // a mutant's height
)

// heat draws mutants by kinds, those that the same kinds show beside each other.
func heat(file, title string, mutants []judged) error {
	var rows [][]float64
	for _, m := range mutants {
		s := shares(m)
		var r []float64
		for _, k := range columns {
			if v := s[k]; v.broke > 0 { // an empty cell reads as one where nothing broke
				r = append(r, v.value())
			} else {
				r = append(r, charts.GetNullValue())
			}
		}
		rows = append(rows, r)
	}
	order := make([]int, len(mutants))
	for i := range order {
		order[i] = i
	}
	place := func(i int) int { return slices.IndexFunc(rows[i], func(v float64) bool { return v > 0 && v <= 1 }) }
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(place(a), place(b)) })
	o := charts.NewHeatMapOptionWithData(nil)
	for _, i := range order {
		o.Values = append(o.Values, rows[i])
		o.YAxis.Labels = append(o.YAxis.Labels, mutants[i].Name)
	}
	o.Theme = theme()
	o.Title.Text = "outbox/" + title + ": share of the runs that broke an invariant"
	o.Title.FontStyle.FontSize = 11
	o.XAxis.Labels = columns
	o.XAxis.LabelFontStyle.FontSize = 9
	o.XAxis.LabelCount = len(columns)
	o.YAxis.LabelFontStyle.FontSize = 8
	o.YAxis.LabelCount = len(mutants)
	o.ScaleMinValue, o.ScaleMaxValue = charts.Ptr(0.0), charts.Ptr(1.0)
	p := painter(80 + row*len(mutants))
	if err := p.HeatMapChart(o); err != nil {
		return err
	}
	return write(file, p)
}

// chances draws each mutant's chance of being found by one random kill.
func chances(file string, kills []judged) error {
	var values []float64
	for _, m := range kills {
		if v := shares(m)["kill"]; !without(m) && v.of > 0 {
			values = append(values, v.value()*100)
		}
	}
	slices.Sort(values)
	o := charts.NewBarChartOptionWithData([][]float64{values})
	o.Theme = theme()
	o.Title.Text = "Chance that one random kill finds it, in %, mutant by mutant"
	o.Title.FontStyle.FontSize = 11
	o.CategoryAxis.Labels = make([]string, len(values))
	o.CategoryAxis.LabelCount = 1
	o.ValueAxis = []charts.ValueAxisOption{{LabelFontStyle: charts.FontStyle{FontSize: 9}, Min: charts.Ptr(0.0), Max: charts.Ptr(100.0)}}
	p := painter(260)
	if err := p.BarChart(o); err != nil {
		return err
	}
	return write(file, p)
}

func painter(height int) *charts.Painter {
	return charts.NewPainter(charts.PainterOptions{OutputFormat: charts.ChartOutputSVG, Width: width, Height: height})
}

func theme() charts.ColorPalette {
	line := charts.Color{R: 200, G: 200, B: 200, A: 255}
	return charts.MakeTheme(charts.ThemeOption{
		AxisStrokeColor: line, AxisSplitLineColor: line,
		TextColor:       charts.Color{R: 40, G: 40, B: 40, A: 255},
		BackgroundColor: charts.ColorWhite, // a picture in a page knows nothing of the page's theme
		SeriesColors:    []charts.Color{{R: 178, G: 34, B: 52, A: 255}},
	})
}

func write(file string, p *charts.Painter) error {
	b, err := p.Bytes()
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o644)
}
