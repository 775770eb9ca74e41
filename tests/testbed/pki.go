package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// A client's certificate and kubeconfig: who it is to the API server.
type client struct{ file, user, group string }

// pki writes a certificate authority, the API server's certificate, the ServiceAccount keys and a kubeconfig for each
// client into one folder.
func pki() int {
	folder := flag.String("folder", "", "where to write")
	server := flag.String("server", "", "URL of the API server")
	names := flag.String("names", "127.0.0.1,localhost", "names and addresses of the API server, separated by commas")
	node := flag.String("node", "node", "name of the node whose kubelet gets a kubeconfig")
	flag.Parse()

	ca, err := newAuthority(*folder)
	if err != nil {
		return failed(err)
	}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "kube-apiserver"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, name := range strings.Split(*names, ",") {
		if address := net.ParseIP(name); address != nil {
			template.IPAddresses = append(template.IPAddresses, address)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	if _, _, err := ca.issue(*folder, "apiserver", template); err != nil {
		return failed(err)
	}
	if err := serviceAccountKeys(*folder); err != nil {
		return failed(err)
	}
	for _, who := range []client{
		{"admin", "testbed-admin", "system:masters"},
		{"controller-manager", "system:kube-controller-manager", ""},
		{"scheduler", "system:kube-scheduler", ""},
		{"kubelet", "system:node:" + *node, "system:nodes"},
		// The API server's own identity towards kubelets.
		{"apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters"},
	} {
		if err := ca.kubeconfig(*folder, *server, who); err != nil {
			return failed(err)
		}
	}
	return 0
}

type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
	pem         []byte
}

func newAuthority(folder string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "testbed"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	ca := &authority{certificate: template, key: key}
	if ca.pem, _, err = ca.sign(template, key); err != nil {
		return nil, err
	}
	block, _ := pem.Decode(ca.pem)
	if ca.certificate, err = x509.ParseCertificate(block.Bytes); err != nil {
		return nil, err
	}
	return ca, write(folder, "ca.crt", ca.pem)
}

// sign returns the certificate of the template for the key, and the key, both in PEM.
func (ca *authority) sign(template *x509.Certificate, key crypto.Signer) (certificate, secret []byte, err error) {
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, nil, err
	}
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().AddDate(1, 0, 0)
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, key.Public(), ca.key)
	if err != nil {
		return nil, nil, err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), nil
}

// issue writes NAME.crt and NAME.key.
func (ca *authority) issue(folder, name string, template *x509.Certificate) (certificate, secret []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	if certificate, secret, err = ca.sign(template, key); err != nil {
		return nil, nil, err
	}
	if err := write(folder, name+".crt", certificate); err != nil {
		return nil, nil, err
	}
	return certificate, secret, write(folder, name+".key", secret)
}

// kubeconfig writes NAME.crt, NAME.key and NAME.kubeconfig for a client.
func (ca *authority) kubeconfig(folder, server string, who client) error {
	subject := pkix.Name{CommonName: who.user}
	if who.group != "" {
		subject.Organization = []string{who.group}
	}
	certificate, secret, err := ca.issue(folder, who.file, &x509.Certificate{
		Subject: subject, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return err
	}
	config := api.NewConfig()
	config.Clusters["testbed"] = &api.Cluster{Server: server, CertificateAuthorityData: ca.pem}
	config.AuthInfos[who.user] = &api.AuthInfo{ClientCertificateData: certificate, ClientKeyData: secret}
	config.Contexts["testbed"] = &api.Context{Cluster: "testbed", AuthInfo: who.user}
	config.CurrentContext = "testbed"
	return clientcmd.WriteToFile(*config, filepath.Join(folder, who.file+".kubeconfig"))
}

// serviceAccountKeys writes sa.key, which signs ServiceAccount tokens, and sa.pub, which checks them.
func serviceAccountKeys(folder string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := write(folder, "sa.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})); err != nil {
		return err
	}
	return write(folder, "sa.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
}

func write(folder, name string, content []byte) error {
	return os.WriteFile(filepath.Join(folder, name), content, 0o600)
}
