CREATE TABLE "my schema"."m""[]_appends" (
	conversation VARCHAR2(64 CHAR) NOT NULL,
	digest VARCHAR2(64 CHAR) NOT NULL,
	"last" NUMBER(19) NOT NULL,
	"system" NUMBER(19) NOT NULL,
	created DOUBLE PRECISION NOT NULL,
	PRIMARY KEY (conversation, digest)
);

CREATE TABLE "my schema"."m""[]_conversations" (
	id VARCHAR2(64 CHAR) NOT NULL,
	namespace_id VARCHAR2(64 CHAR) NOT NULL,
	namespace VARCHAR2(510 CHAR),
	memory_id VARCHAR2(510 CHAR) NOT NULL,
	"last" NUMBER(19) NOT NULL,
	"system" NUMBER(19) NOT NULL,
	"messages" NUMBER(19) NOT NULL,
	oldest DOUBLE PRECISION NOT NULL,
	updated DOUBLE PRECISION NOT NULL,
	PRIMARY KEY (id)
);

CREATE TABLE "my schema"."m""[]_messages" (
	conversation VARCHAR2(64 CHAR) NOT NULL,
	"sequence" NUMBER(19) NOT NULL,
	"record" CLOB NOT NULL,
	created DOUBLE PRECISION NOT NULL,
	provenance CLOB,
	PRIMARY KEY (conversation, "sequence")
);

CREATE TABLE "my schema"."m""[]_version" (
	"name" VARCHAR2(32 CHAR) NOT NULL,
	"version" NUMBER(19) NOT NULL,
	PRIMARY KEY ("name")
);

CREATE INDEX "my schema"."ix_my schema_m""[]_conversations_namespace_id" ON "my schema"."m""[]_conversations" (namespace_id);

UPDATE "my schema"."m""[]_conversations" SET "system"=CASE WHEN (:p_offset > :param_1) THEN "my schema"."m""[]_conversations"."last" + :p_offset ELSE "my schema"."m""[]_conversations"."system" END, "last"=("my schema"."m""[]_conversations"."last" + :p_count), "messages"=("my schema"."m""[]_conversations"."messages" + :p_count), oldest=CASE WHEN (:p_offset > :param_2) THEN :param_3 ELSE "my schema"."m""[]_conversations".oldest END, updated=:p_now WHERE "my schema"."m""[]_conversations".id = :p_conversation RETURNING "my schema"."m""[]_conversations"."last", "my schema"."m""[]_conversations"."system" INTO :ret_0, :ret_1;

INSERT INTO "my schema"."m""[]_appends" (conversation, digest, "last", "system", created) VALUES (:conversation, :digest, :"last", :"system", :created);

INSERT INTO "my schema"."m""[]_messages" (conversation, "sequence", "record", created, provenance) VALUES (:conversation, :"sequence", :"record", :created, :provenance);

SELECT "my schema"."m""[]_messages"."sequence", "my schema"."m""[]_messages"."record", "my schema"."m""[]_messages".created, "my schema"."m""[]_messages".provenance
FROM "my schema"."m""[]_messages"
WHERE "my schema"."m""[]_messages".conversation = :p_conversation AND "my schema"."m""[]_messages"."sequence" > :p_after AND "my schema"."m""[]_messages"."sequence" <= :p_until AND (EXISTS (SELECT *
FROM "my schema"."m""[]_appends"
WHERE "my schema"."m""[]_appends".conversation = :p_conversation AND "my schema"."m""[]_appends".digest = :p_digest AND "my schema"."m""[]_appends"."last" = :p_until)) UNION ALL SELECT "my schema"."m""[]_messages"."sequence", "my schema"."m""[]_messages"."record", "my schema"."m""[]_messages".created, "my schema"."m""[]_messages".provenance
FROM "my schema"."m""[]_messages"
WHERE "my schema"."m""[]_messages".conversation = :p_conversation AND "my schema"."m""[]_messages"."sequence" = :p_system AND (EXISTS (SELECT *
FROM "my schema"."m""[]_appends"
WHERE "my schema"."m""[]_appends".conversation = :p_conversation AND "my schema"."m""[]_appends".digest = :p_digest AND "my schema"."m""[]_appends"."last" = :p_until));

INSERT INTO "my schema"."m""[]_conversations" (id, namespace_id, namespace, memory_id, "last", "system", "messages", oldest, updated) VALUES (:id, :namespace_id, :namespace, :memory_id, :"last", :"system", :"messages", :oldest, :updated);

SELECT anon_1."sequence", anon_1."record", anon_1.created, anon_1.provenance
FROM (SELECT "my schema"."m""[]_messages"."sequence" AS "sequence", "my schema"."m""[]_messages"."record" AS "record", "my schema"."m""[]_messages".created AS created, "my schema"."m""[]_messages".provenance AS provenance
FROM "my schema"."m""[]_messages"
WHERE "my schema"."m""[]_messages".conversation = :p_conversation AND "my schema"."m""[]_messages"."sequence" > (SELECT "my schema"."m""[]_conversations"."last" - :p_size AS anon_2
FROM "my schema"."m""[]_conversations"
WHERE "my schema"."m""[]_conversations".id = :p_conversation) ORDER BY "my schema"."m""[]_messages"."sequence" DESC
 FETCH FIRST :p_size ROWS ONLY) anon_1 UNION ALL SELECT "my schema"."m""[]_messages"."sequence", "my schema"."m""[]_messages"."record", "my schema"."m""[]_messages".created, "my schema"."m""[]_messages".provenance
FROM "my schema"."m""[]_messages"
WHERE "my schema"."m""[]_messages".conversation = :p_conversation AND "my schema"."m""[]_messages"."sequence" = (SELECT "my schema"."m""[]_conversations"."system"
FROM "my schema"."m""[]_conversations"
WHERE "my schema"."m""[]_conversations".id = :p_conversation AND "my schema"."m""[]_conversations"."system" <= "my schema"."m""[]_conversations"."last" - :p_size);

SELECT "my schema"."m""[]_appends"."last", "my schema"."m""[]_appends"."system"
FROM "my schema"."m""[]_appends"
WHERE "my schema"."m""[]_appends".conversation = :p_conversation AND "my schema"."m""[]_appends".digest = :p_digest;

SELECT "my schema"."m""[]_messages"."sequence", "my schema"."m""[]_messages"."record", "my schema"."m""[]_messages".created, "my schema"."m""[]_messages".provenance
FROM "my schema"."m""[]_messages"
WHERE "my schema"."m""[]_messages".conversation = :conversation_1 AND "my schema"."m""[]_messages"."sequence" > :sequence_1 ORDER BY "my schema"."m""[]_messages"."sequence"
 FETCH FIRST __[POSTCOMPILE_param_1] ROWS ONLY;

SELECT "my schema"."m""[]_conversations".id, "my schema"."m""[]_conversations".namespace_id, "my schema"."m""[]_conversations".namespace, "my schema"."m""[]_conversations".memory_id, "my schema"."m""[]_conversations"."last", "my schema"."m""[]_conversations"."system", "my schema"."m""[]_conversations"."messages", "my schema"."m""[]_conversations".oldest, "my schema"."m""[]_conversations".updated
FROM "my schema"."m""[]_conversations"
WHERE "my schema"."m""[]_conversations".namespace_id = :namespace_id_1 AND "my schema"."m""[]_conversations".id > :id_1 AND "my schema"."m""[]_conversations"."messages" > :messages_1 ORDER BY "my schema"."m""[]_conversations".id
 FETCH FIRST __[POSTCOMPILE_param_1] ROWS ONLY;

SELECT count(*) AS count_1, coalesce(sum("my schema"."m""[]_conversations"."messages"), :coalesce_2) AS coalesce_1
FROM "my schema"."m""[]_conversations"
WHERE "my schema"."m""[]_conversations".namespace_id = :namespace_id_1 AND "my schema"."m""[]_conversations"."messages" > :messages_1;

SELECT DISTINCT "my schema"."m""[]_conversations".namespace
FROM "my schema"."m""[]_conversations"
WHERE "my schema"."m""[]_conversations"."messages" > :messages_1;

SELECT "my schema"."m""[]_conversations"."last", "my schema"."m""[]_conversations"."system", "my schema"."m""[]_conversations"."messages"
FROM "my schema"."m""[]_conversations"
WHERE "my schema"."m""[]_conversations".id = :id_1 FOR UPDATE;

SELECT min("my schema"."m""[]_messages"."sequence") AS min_1
FROM "my schema"."m""[]_messages"
WHERE "my schema"."m""[]_messages".conversation = :conversation_1 AND NOT ("my schema"."m""[]_messages"."sequence" <= :sequence_1 OR "my schema"."m""[]_messages".created < :created_1);

SELECT count(*) AS count_1
FROM "my schema"."m""[]_messages"
WHERE "my schema"."m""[]_messages".conversation = :conversation_1 AND ("my schema"."m""[]_messages"."sequence" <= :sequence_1 OR "my schema"."m""[]_messages".created < :created_1) AND "my schema"."m""[]_messages"."sequence" != :sequence_2;

DELETE FROM "my schema"."m""[]_messages" WHERE "my schema"."m""[]_messages".conversation = :conversation_1 AND ("my schema"."m""[]_messages"."sequence" <= :sequence_1 OR "my schema"."m""[]_messages".created < :created_1) AND "my schema"."m""[]_messages"."sequence" != :sequence_2;

SELECT min("my schema"."m""[]_messages".created) AS min_1
FROM "my schema"."m""[]_messages"
WHERE "my schema"."m""[]_messages".conversation = :conversation_1 AND "my schema"."m""[]_messages"."sequence" >= :sequence_1;

UPDATE "my schema"."m""[]_conversations" SET "messages"=("my schema"."m""[]_conversations"."messages" - :messages_1), oldest=:oldest WHERE "my schema"."m""[]_conversations".id = :id_1;

DELETE FROM "my schema"."m""[]_appends" WHERE "my schema"."m""[]_appends".conversation = :conversation_1 AND "my schema"."m""[]_appends"."last" < :last_1 AND "my schema"."m""[]_appends".created < :created_1;

SELECT "my schema"."m""[]_conversations".id
FROM "my schema"."m""[]_conversations"
WHERE "my schema"."m""[]_conversations".namespace_id = :namespace_id_1 AND "my schema"."m""[]_conversations".id > :id_1 AND ("my schema"."m""[]_conversations"."messages" > :messages_1 OR "my schema"."m""[]_conversations".oldest < :oldest_1) ORDER BY "my schema"."m""[]_conversations".id
 FETCH FIRST __[POSTCOMPILE_param_1] ROWS ONLY;

SELECT "my schema"."m""[]_conversations".id
FROM "my schema"."m""[]_conversations"
WHERE "my schema"."m""[]_conversations".namespace_id = :namespace_id_1 AND "my schema"."m""[]_conversations".id = :id_1 AND ("my schema"."m""[]_conversations"."messages" > :messages_1 OR "my schema"."m""[]_conversations".oldest < :oldest_1) ORDER BY "my schema"."m""[]_conversations".id
 FETCH FIRST __[POSTCOMPILE_param_1] ROWS ONLY;

SELECT DISTINCT "my schema"."m""[]_appends".conversation
FROM "my schema"."m""[]_appends"
WHERE "my schema"."m""[]_appends"."last" = :last_1 AND "my schema"."m""[]_appends".created < :created_1;

DELETE FROM "my schema"."m""[]_appends" WHERE "my schema"."m""[]_appends".conversation = :conversation_1 AND "my schema"."m""[]_appends"."last" = :last_1 AND "my schema"."m""[]_appends".created < :created_1;

DELETE FROM "my schema"."m""[]_conversations" WHERE "my schema"."m""[]_conversations".id = :id_1;

UPDATE "my schema"."m""[]_appends" SET "last"=:"last", "system"=:"system" WHERE "my schema"."m""[]_appends".conversation = :conversation_1;

DELETE FROM "my schema"."m""[]_version" WHERE "my schema"."m""[]_version"."name" = :name_1;

INSERT INTO "my schema"."m""[]_version" ("name", "version") VALUES (:"name", :"version");
