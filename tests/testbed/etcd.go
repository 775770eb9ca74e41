package main

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// etcd runs one member without a cluster and without fsync: its data need not outlive a power cut.
func etcd() int {
	data := flag.String("data-dir", "", "folder of the data")
	client := flag.String("listen-client-url", "http://127.0.0.1:2379", "address for clients")
	peer := flag.String("listen-peer-url", "http://127.0.0.1:2380", "address for peers")
	flag.Parse()

	config := embed.NewConfig()
	config.Dir = *data
	config.UnsafeNoFsync = true
	config.LogLevel = "warn"
	config.LogOutputs = []string{"stderr"}
	clientURL, err := url.Parse(*client)
	if err != nil {
		return failed(err)
	}
	peerURL, err := url.Parse(*peer)
	if err != nil {
		return failed(err)
	}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*clientURL}, []url.URL{*clientURL}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{*peerURL}, []url.URL{*peerURL}
	config.InitialCluster = config.InitialClusterFromName(config.Name)

	server, err := embed.StartEtcd(config)
	if err != nil {
		return failed(err)
	}
	defer server.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	select {
	case <-server.Server.ReadyNotify():
	case <-time.After(30 * time.Second):
		return failed(fmt.Errorf("not ready after 30 s"))
	case <-stop:
		return 0
	}
	select {
	case err := <-server.Err():
		return failed(err)
	case <-stop:
		return 0
	}
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, "error:", err)
	return 1
}
