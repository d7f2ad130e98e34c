package admin_test

import (
	"fmt"
	"log"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tprelay/tprelay/admin"
	"github.com/tprelay/tprelay/engine"
)

// The program's own registry has the engine's metrics beside the others.
func ExampleCollector() {
	relay, err := engine.New(engine.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer relay.Close()
	registry := prometheus.NewRegistry()
	registry.MustRegister(admin.Collector(relay))

	families, err := registry.Gather()
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "tprelay_pairs" {
			fmt.Println(f.GetHelp(), f.Metric[0].GetGauge().GetValue())
		}
	}
	// Output: Current pairs. 0
}
