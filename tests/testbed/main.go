// Command testbed holds a whole Kubernetes control plane in one binary: the first argument, or the name it was
// started by, says which part this process is. The parts share global state, so each needs a process of its own.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// Only the chosen constructor is called: they have side effects on the whole process.
var parts = map[string]func() int{
	"etcd":                    etcd,
	"pki":                     pki,
	"kube-apiserver":          component(apiserver.NewAPIServerCommand),
	"kube-controller-manager": component(controllers.NewControllerManagerCommand),
	"kube-scheduler":          component(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kubectl":                 component(cmd.NewDefaultKubectlCommand),
}

func component(command func() *cobra.Command) func() int {
	return func() int { return cli.Run(command()) }
}

func main() {
	name := filepath.Base(os.Args[0])
	part, ok := parts[name]
	if !ok && len(os.Args) > 1 {
		name = os.Args[1]
		part, ok = parts[name]
		os.Args = os.Args[1:]
	}
	if !ok {
		fmt.Fprintln(os.Stderr, "usage: testbed etcd|pki|kube-apiserver|kube-controller-manager|kube-scheduler|kubectl ARGUMENT...")
		os.Exit(2)
	}
	os.Exit(part())
}
