package intercept

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ spec, stream, want string }{
		{"label=[x]", "abc", "[x]abc"},
		{`label=a:b\:c=\n`, "abc", "a:b:c=\nabc"},
		{"replace=cat:dog", "a cat", "a dog"},
		{"replace=cat:", "a cat", "a "},
		{`replace=\:\\:\x41\u00e9\"\'\t`, `a:\b`, "aA\u00e9\"'\tb"},
		{`replace=\xff\n:=`, "a\xff\nb", "a=b"},
		{"replace=\xff:é", "a\xffb", "aéb"},
		{"record=" + dir, "abc", "abc"},
	} {
		i, err := Parse(c.spec)
		noError(t, err)
		d := i.Open(testPair)
		if got, _ := drive(t, d.Upstream, []byte(c.stream), whole); string(got) != c.want {
			t.Errorf("%s: %q became %q, want %q", c.spec, c.stream, got, c.want)
		}
		noError(t, d.CloseHandlers())
	}
	if i, _ := Parse("record=" + dir); i.(*Recorder) == nil {
		t.Error("record= is no Recorder")
	}
}

func TestParseErrorsSayWhatToDo(t *testing.T) {
	for _, c := range []struct{ spec, want string }{
		{"", "want label=TEXT, replace=OLD:NEW or record=DIR"},
		{"upper", "want label=TEXT, replace=OLD:NEW or record=DIR"},
		{"upper=\n", "want label=TEXT"},
		{"label", "label needs an argument"},
		{"label=", "the text is empty"},
		{`label=a\`, `write \\ for a backslash`},
		{`label=\q`, `write \\ for a backslash`},
		{`replace=\x4:b`, `write \\ for a backslash`},
		{"replace=", "want replace=OLD:NEW"},
		{"replace=a", "want replace=OLD:NEW"},
		{`replace=a\:b`, "want replace=OLD:NEW"},
		{"replace=:b", "old text is empty"},
		{"replace=a:b:c", `write \: for a colon`},
		{"record=", "no directory given"},
		{"record=/nowhere/at/all", "create it first"},
	} {
		i, err := Parse(c.spec)
		if err == nil || i != nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, %v, want %q", c.spec, i, err, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, spec := range []string{"label=x", `replace=\x00\::\n`, "replace=a:b:c", "record=/", "=", `label=\u00e9\`} {
		f.Add(spec)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		i, err := Parse(spec)
		if err != nil {
			if i != nil || strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("%q: %v, %q", spec, i, err)
			}
			return
		}
		if _, ok := i.(*Recorder); ok {
			return // would write to whatever directory it is
		}
		d := i.Open(testPair)
		if _, last := drive(t, d.Upstream, []byte(spec), single); last != Forward {
			t.Fatalf("%q: verdict %d", spec, last)
		}
	})
}
