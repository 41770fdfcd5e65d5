// minidns answers for the names that a cluster's pods ask for: Services, headless Services
// and the pods behind them. Everything else does not exist, as the cluster has no way out.
//
// It is built within the Kubernetes source tree, whose vendor folder has the DNS library
// and the API client.
package main

import (
	"flag"
	"log"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
	core "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	suffix = ".svc.cluster.local."
	// Seconds; short, as tests make and delete Services all the time.
	ttl = 2
)

type server struct {
	services  listers.ServiceLister
	endpoints listers.EndpointsLister
}

// podName is the label of an address below its headless Service.
func podName(address core.EndpointAddress) string {
	if address.Hostname != "" {
		return address.Hostname
	}
	return strings.ReplaceAll(address.IP, ".", "-")
}

// addresses of NAME.NAMESPACE.svc or POD.NAME.NAMESPACE.svc, and whether there is such a name.
func (s *server) addresses(name string) (found []string, exists bool) {
	if !strings.HasSuffix(name, suffix) {
		return nil, false
	}
	labels := strings.Split(strings.TrimSuffix(name, suffix), ".")
	pod := ""
	if len(labels) == 3 {
		pod, labels = labels[0], labels[1:]
	}
	if len(labels) != 2 {
		return nil, false
	}
	service, err := s.services.Services(labels[1]).Get(labels[0])
	if err != nil {
		return nil, false
	}
	if service.Spec.ClusterIP != core.ClusterIPNone && pod == "" {
		return []string{service.Spec.ClusterIP}, true
	}
	endpoints, err := s.endpoints.Endpoints(labels[1]).Get(labels[0])
	if err != nil {
		return nil, pod == ""
	}
	for _, subset := range endpoints.Subsets {
		addresses := append([]core.EndpointAddress{}, subset.Addresses...)
		if service.Spec.PublishNotReadyAddresses {
			addresses = append(addresses, subset.NotReadyAddresses...)
		}
		for _, address := range addresses {
			if pod == "" || pod == podName(address) {
				found = append(found, address.IP)
			}
		}
	}
	return found, pod == "" || len(found) > 0
}

// ServeDNS answers one message.
func (s *server) ServeDNS(w dns.ResponseWriter, request *dns.Msg) {
	reply := new(dns.Msg)
	reply.SetReply(request)
	reply.Authoritative = true
	if len(request.Question) == 1 {
		question := request.Question[0]
		header := dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}
		found, exists := s.addresses(strings.ToLower(question.Name))
		if !exists {
			reply.Rcode = dns.RcodeNameError
		}
		for _, address := range found {
			// A name that exists has no addresses of other types, IPv6 that is.
			if question.Qtype == dns.TypeA {
				reply.Answer = append(reply.Answer, &dns.A{Hdr: header, A: net.ParseIP(address)})
			}
		}
	}
	if err := w.WriteMsg(reply); err != nil {
		log.Print(err)
	}
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server")
	listen := flag.String("listen", "127.0.0.1:5353", "address and port, UDP and TCP")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	factory := informers.NewSharedInformerFactory(kubernetes.NewForConfigOrDie(config), 10*time.Minute)
	s := &server{
		services:  factory.Core().V1().Services().Lister(),
		endpoints: factory.Core().V1().Endpoints().Lister(),
	}
	stop := make(chan struct{})
	factory.Start(stop)
	factory.WaitForCacheSync(stop)
	failed := make(chan error)
	for _, transport := range []string{"udp", "tcp"} {
		go func(transport string) {
			failed <- (&dns.Server{Addr: *listen, Net: transport, Handler: s}).ListenAndServe()
		}(transport)
	}
	log.Printf("minidns answers on %s", *listen)
	log.Fatal(<-failed)
}
