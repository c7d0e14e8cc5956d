// traffic makes the load of the benchmark, and answers it: `traffic load` calls a gateway, and
// `traffic upstream` plays AlipayHK with answers that are signed ahead. Both cost little CPU time, so
// that they share one core while the gateway has the other one.
package main

import (
	"fmt"
	"os"
)

func main() {
	commands := map[string]func([]string) error{"load": load, "upstream": upstream}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: traffic load|upstream [flags]")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
