//! A collector of traces that keeps what it receives, for tests.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::runtime::Handle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

impl Received {
    fn all(&self) -> MutexGuard<'_, Vec<ExportTraceServiceRequest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.all().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Takes traces by OTLP over gRPC until its runtime ends.
pub(crate) struct Collector {
    received: Received,
    address: SocketAddr,
}

impl Collector {
    /// Takes them at `address` from now on; port 0 is any that is free.
    pub(crate) fn start(address: SocketAddr, runtime: &Handle) -> io::Result<Self> {
        let received = Received::default();
        let _context = runtime.enter();
        let incoming = TcpIncoming::bind(address)?;
        let address = incoming.local_addr()?;
        let service = TraceServiceServer::new(received.clone());
        runtime.spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        Ok(Self { received, address })
    }

    /// Where.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// All spans so far, each with the service it comes from.
    pub(crate) fn spans(&self) -> Vec<(String, Span)> {
        let requests = self.received.all().clone();
        let resources = requests.into_iter().flat_map(|request| request.resource_spans);
        resources
            .flat_map(|resource| {
                let about = resource.resource.unwrap_or_default().attributes;
                let name = about.into_iter().find(|about| about.key == "service.name");
                let name = match name.and_then(|name| name.value?.value) {
                    Some(Value::StringValue(name)) => name,
                    _ => String::new(),
                };
                let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
                spans.map(move |span| (name.clone(), span))
            })
            .collect()
    }
}
