package main

import (
	"encoding/xml"
	"strings"
	"testing"
)

func TestDrawShowsEachLine(t *testing.T) {
	var out strings.Builder
	if err := draw(&out, "make <x>", strings.NewReader("a & b\n\n  ä\n")); err != nil {
		t.Fatal(err)
	}
	var svg struct {
		Texts []struct {
			Y          int    `xml:"y,attr"`
			TextLength int    `xml:"textLength,attr"`
			Text       string `xml:",chardata"`
		} `xml:"g>text"`
	}
	if err := xml.Unmarshal([]byte(out.String()), &svg); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	want := []string{"$ make <x>", "a & b", "  ä"}
	if len(svg.Texts) != len(want) {
		t.Fatalf("%d lines, want %d:\n%s", len(svg.Texts), len(want), &out)
	}
	for i, text := range svg.Texts {
		if text.Text != want[i] {
			t.Errorf("line %d is %q, want %q", i, text.Text, want[i])
		}
	}
	if last := svg.Texts[2]; last.Y-svg.Texts[1].Y != 2*cellHeight || last.TextLength != 3*cellWidth {
		t.Errorf("last line: y %d, length %d:\n%s", last.Y, last.TextLength, &out)
	}
}

func TestDrawFailsWithoutOutput(t *testing.T) {
	var out strings.Builder
	if err := draw(&out, "make demo", strings.NewReader("")); err == nil || out.Len() > 0 {
		t.Errorf("error %v, %q", err, &out)
	}
}
