package view

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestContrast holds the colours of both themes to WCAG AA: 4.5 for text, 3 for
// what only has to be seen.
func TestContrast(t *testing.T) {
	css, err := files.ReadFile("theme.css")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile(`--c-fg: [^}]*`).FindAllString(string(css), -1)
	if len(blocks) != 4 {
		t.Fatalf("%d themes", len(blocks))
	}
	if compact(blocks[0]) != compact(blocks[3]) || compact(blocks[1]) != compact(blocks[2]) {
		t.Error("the theme of the page and that of the system differ")
	}
	pair := regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]+)`)
	for _, b := range blocks {
		c := map[string]float64{}
		for _, m := range pair.FindAllStringSubmatch(b, -1) {
			c[m[1]] = luminance(m[2])
		}
		for _, x := range []struct {
			fg, bg string
			least  float64
		}{
			{"c-fg", "c-bg", 7}, {"c-mute", "c-bg", 4.5}, {"c-fg", "c-soft", 7}, {"ccv-bad", "c-bg", 4.5},
			{"ccv-bad", "ccv-bad-soft", 4.5}, {"ccv-on-bad", "ccv-bad", 4.5}, {"ccv-good", "c-bg", 4.5},
			{"ccv-warn", "c-bg", 4.5}, {"ccv-tx", "c-bg", 3},
		} {
			a, b := c[x.fg], c[x.bg]
			if ratio := (math.Max(a, b) + 0.05) / (math.Min(a, b) + 0.05); ratio < x.least {
				t.Errorf("%s on %s: %.2f", x.fg, x.bg, ratio)
			}
		}
	}
}

func compact(s string) string { return strings.Join(strings.Fields(s), "") }

// luminance is that of WCAG, of a colour such as #fff or #1c2024.
func luminance(hex string) float64 {
	hex = hex[1:]
	if len(hex) == 3 {
		hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
	}
	var out float64
	for i, share := range []float64{0.2126, 0.7152, 0.0722} {
		n, _ := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
		v := float64(n) / 255
		if v <= 0.04045 {
			v /= 12.92
		} else {
			v = math.Pow((v+0.055)/1.055, 2.4)
		}
		out += share * v
	}
	return out
}
