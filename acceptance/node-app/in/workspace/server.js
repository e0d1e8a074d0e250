// Says what is for lunch on a day: GET /lunch/2024-02-29

const express = require('express');
const { DateTime } = require('luxon');

const MEAL = 'soup';

const app = express();

app.get('/lunch/:day', (request, response) => {
  const day = DateTime.fromISO(request.params.day, { locale: 'en' });
  if (!day.isValid) {
    response.status(400).json({ error: day.invalidExplanation });
    return;
  }
  response.json({ day: day.toFormat('cccc'), meal: MEAL });
});

const server = app.listen(process.env.PORT ?? 8080, '127.0.0.1', () => {
  console.log(`listening on port ${server.address().port}`);
});
