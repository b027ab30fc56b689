//! Server-sent events: one by one, after silence, and to nobody.

use http::{Method, Response};

use crate::ends::{Client, Hearer, Sayer, nothing, spoken};
use crate::scene::{Scene, Way};

/// A stream that has begun.
pub(crate) struct Open {
    client: Client,
    sayer: Sayer,
    hearer: Hearer,
}

fn event(number: u32) -> String {
    format!("id: {number}\ndata: {{\"price\": {number}}}\n\n")
}

impl Open {
    pub(crate) async fn new(scene: &mut Scene, way: &Way) -> Self {
        let (mut client, application) = scene.meet(way).await;
        let request = client.request(Method::GET, "/prices");
        let request = request.header("accept", "text/event-stream");
        let asking = client
            .ask(request.body(nothing()).expect("a request"))
            .await;
        let (head, mut body, answerer) = application.arrival().await.open();
        assert_eq!(head.headers["accept"], "text/event-stream");
        body.end().await;
        let (sayer, body) = spoken();
        let answer = Response::builder()
            .header("content-type", "text/event-stream")
            .header("cache-control", "no-store")
            .body(body);
        answerer.answer(answer.expect("an answer"));
        // The head comes before any event.
        let (head, hearer) = asking.answer().await;
        assert_eq!(head.status, 200);
        assert_eq!(head.headers["content-type"], "text/event-stream");
        let mut open = Self {
            client,
            sayer,
            hearer,
        };
        open.events(0..20).await;
        open
    }

    /// No event is said before the last one was heard: whoever gathers them waits for ever.
    async fn events(&mut self, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let event = event(number);
            self.sayer.say(event.clone()).await;
            assert_eq!(self.hearer.exactly(event.len()).await, event);
        }
    }

    /// After silence it is as before, and ends in order.
    pub(crate) async fn goes_on(mut self) {
        self.events(20..40).await;
        drop(self.sayer);
        self.hearer.end().await;
    }
}

/// Begins, goes on, ends when its client is gone: the application learns of that though it has nothing to say.
pub(crate) async fn stream(scene: &mut Scene, way: &Way) {
    let open = Open::new(scene, way).await;
    drop((open.client, open.hearer));
    open.sayer.unheard().await;
    Open::new(scene, way).await.goes_on().await;
}
