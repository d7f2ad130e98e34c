package units

import (
	"fmt"
	"testing"
)

func FuzzSize(f *testing.F) {
	for _, text := range []string{"0", "64KiB", "1.5 mb", "7B", "", "KiB", "99999999999GiB", "1e3", ".", "١k"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s Size
		if s.UnmarshalText([]byte(text)) != nil {
			return
		}
		if s < 0 || s > 1<<60 {
			t.Errorf("%q: %d is out of bounds", text, s)
		}
		for _, again := range []string{fmt.Sprint(int64(s)), " " + text + " "} {
			var same Size
			if err := same.UnmarshalText([]byte(again)); err != nil || same != s {
				t.Errorf("%q is %d, and %q is %d, %v", text, s, again, same, err)
			}
		}
	})
}
