// Command terminal draws its standard input as a terminal window in SVG, below the command line
// that is its argument. `make demo-picture` draws docs/plots/demo.svg with it.
package main

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"unicode/utf8"
)

// Size of a character cell and of the margin, in SVG units.
const cellWidth, cellHeight, margin = 8, 18, 16

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: COMMAND | terminal 'COMMAND' > FILE.svg")
	}
	if err := draw(os.Stdout, os.Args[1], os.Stdin); err != nil {
		log.Fatal(err)
	}
}

// draw writes an SVG with the command line and the lines of output. It fails if there is no
// output, which is what a failed command leaves in a pipeline.
func draw(w io.Writer, command string, output io.Reader) error {
	lines := []string{"$ " + command}
	scanner := bufio.NewScanner(output)
	for scanner.Scan() {
		lines = append(lines, scanner.Text())
	}
	if err := scanner.Err(); err != nil {
		return err
	}
	if len(lines) == 1 {
		return fmt.Errorf("%s printed nothing", command)
	}
	columns := 0
	for _, line := range lines {
		columns = max(columns, utf8.RuneCountInString(line))
	}
	width, height := 2*margin+columns*cellWidth, 2*margin+len(lines)*cellHeight
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" rx="8" fill="#1b1f24"/>`+"\n", width, height)
	b.WriteString(`<g font-family="ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="13" fill="#e6edf3" xml:space="preserve">` + "\n")
	for i, line := range lines {
		if line == "" {
			continue
		}
		colour := ""
		if i == 0 {
			colour = ` fill="#7ee787"`
		}
		// textLength keeps columns aligned whatever the font's own width is.
		fmt.Fprintf(&b, `<text x="%d" y="%d" textLength="%d"%s>`, margin, margin+(i+1)*cellHeight-5, utf8.RuneCountInString(line)*cellWidth, colour)
		if err := xml.EscapeText(&b, []byte(line)); err != nil {
			return err
		}
		b.WriteString("</text>\n")
	}
	b.WriteString("</g>\n</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}
