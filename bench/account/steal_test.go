package account

import "testing"

func TestStealIsAShareOfAllTime(t *testing.T) {
	before, err := parseStat("cpu  100 0 50 800 5 0 5 40 30 0\ncpu0 1 1 1\n")
	if err != nil {
		t.Fatal(err)
	}
	after, err := parseStat("cpu  150 0 70 810 5 0 5 60 60 0\n")
	if err != nil {
		t.Fatal(err)
	}
	between := after.Minus(before)
	if share := between.Share(); share != 0.2 {
		t.Errorf("20 of 100 ticks were stolen, it says %g", share)
	}
	if share := between.Plus(Steal{0, 100}).Share(); share != 0.1 {
		t.Errorf("20 of 200 ticks were stolen, it says %g", share)
	}
	if share := after.Minus(after).Share(); share != 0 {
		t.Errorf("of no time at all %g were stolen", share)
	}
}

func TestStealIsReadFromThisKernel(t *testing.T) {
	s, err := Stolen()
	if err != nil {
		t.Fatal(err)
	}
	if s.total <= 0 || s.stolen < 0 || s.stolen >= s.total {
		t.Errorf("%+v", s)
	}
}

func TestStealOfAnotherFormIsAnError(t *testing.T) {
	for _, text := range []string{"", "cpu 1 2 3\n", "intr 1 2 3 4 5 6 7 8 9\n", "cpu a b c d e f g h i\n"} {
		if s, err := parseStat(text); err == nil {
			t.Errorf("%q: %+v", text, s)
		}
	}
}
