package plot

import (
	"os"
	"strings"
	"testing"
)

func TestPictures(t *testing.T) {
	groups := []Group{{"polling, 1 s", []float64{3, 900, 500, 120, 700, 333}}, {"polling, 100 ms", []float64{9, 12, 55, 99}}, {"notify", []float64{2, 3, 2.5, 4}}, {"cdc", []float64{1, 2, 3, 30}}}
	for name, draw := range map[string]func() (string, error){
		"dots": Dots{"From commit to delivery", "ms", groups}.svg,
		"bars": Bars{"Statements while idle", "per second", groups}.svg,
	} {
		svg, err := draw()
		if err != nil {
			t.Fatal(err)
		}
		if d := os.Getenv("PLOT_OUT"); d != "" {
			os.WriteFile(d+"/"+name+".svg", []byte(svg), 0o644)
		}
		if strings.Contains(svg, "rgb(1,2,3)") || !strings.Contains(svg, "currentColor") {
			t.Errorf("%s does not follow the page's colours", name)
		}
	}
}
