package svg

import (
	_ "embed"
	"fmt"
	"html/template"
)

//go:embed page.html.tmpl
var shared string

// Page parses the template of a page, which has the templates "style", the text of its
// style element, and "drawing", a [Drawing] as SVG.
func Page(name, text string) (*template.Template, error) {
	t, err := template.New(name).Parse(text)
	if err == nil {
		t, err = t.Parse(shared)
	}
	if err != nil {
		return nil, fmt.Errorf("template of the %s: %w", name, err)
	}
	return t, nil
}
